// mimo-bench on the emulated GPU, as a user runs it: a whole step, a check of results, wrong questions.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/tools/program.h"
#include "tools/bench/step.h"

namespace mimo {
namespace {

Outcome run_bench(const std::string& arguments) {
  const char* named = std::getenv("MIMO_BENCH_EMULATED");
  return Program(std::string(named ? named : "build/mimo-bench-emulated") + " " + arguments).wait(240);
}

TEST(BenchProgram, AWholeStep) {
  const Outcome o = run_bench("step --device=cuda --small --steps=1 --json");
  ASSERT_EQ(o.status, 0) << o.output;
  const auto j = nlohmann::json::parse(o.output);
  EXPECT_TRUE(j["mfu"].is_null() && j["peak_flop_per_second"].is_null());  // of an emulator nothing is stated
  EXPECT_LT(j["loss"][1].get<double>(), j["loss"][0].get<double>());
  EXPECT_GT(j["queue_ms"].get<double>(), 0);
  EXPECT_GT(j["peak_memory_bytes"].get<int64_t>(), j["memory_bytes"]["optimizer"].get<int64_t>());
  EXPECT_EQ(j["tokens"], 128);
  double phases = 0, ops = 0;
  bool attention = false;
  for (const auto& [name, ms] : j["phases_ms"].items()) phases += ms.get<double>();
  for (const auto& op : j["ops"]) {
    ops += op["ms"].get<double>();
    attention |= op["name"] == "AttentionBackward<mimo::bf16>" && op["calls"] == 3.0;
  }
  EXPECT_GT(phases, 0);
  EXPECT_GT(ops, 0);
  EXPECT_TRUE(attention) << o.output;  // one of the language model, two of the encoder
}

TEST(BenchProgram, ChecksWhatItMeasures) {
  const Outcome o = run_bench(
      "--device=cuda --small --check --benchmark_filter='attention/forward/.*/300x17/|rms_norm.*/rows:64/|"
      "gemm/.*/40x256x64|cross_entropy<.*:512'");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.count("  ok"), 1 + 4 + 2 + 2) << o.output;
  EXPECT_EQ(o.count("WRONG"), 0) << o.output;
}

TEST(BenchProgram, RefusesWrongQuestions) {
  for (const char* arguments :
       {"step --check", "step --steps=0", "step --benchmark_filter=x", "--steps=2", "stap"})
    EXPECT_EQ(run_bench(arguments).status, 2) << arguments;
}

TEST(BenchProgram, PeaksAreStated) {
  using mimo::bench::stated_flop_per_second;
  EXPECT_EQ(stated_flop_per_second("NVIDIA H100 80GB HBM3"), 989e12);
  EXPECT_EQ(stated_flop_per_second("NVIDIA H100 PCIe"), 756e12);
  EXPECT_EQ(stated_flop_per_second("NVIDIA H200"), 989e12);
  EXPECT_EQ(stated_flop_per_second("emulator"), 0);
}

}  // namespace
}  // namespace mimo
