// Whole training runs on the emulated GPU: every kernel in its place, against the same runs on the CPU.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "io/metrics.h"
#include "tests/tools/program.h"

namespace mimo {
namespace {

class EmulatedTraining : public testing::Test {
 protected:
  EmulatedTraining() {
    write_tiny_dataset(path("data.h5"), 16, 4);
    write_tiny_config(path("tiny.toml"), path("data.h5"));
  }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }

  // The program linked with the emulator.
  static std::string program() {
    const char* named = std::getenv("MIMO_EMULATED");
    return named ? named : "build/mimo-emulated";
  }
  Outcome run(int ranks, const std::string& name, const std::string& more, int steps = 5) const {
    const std::string launcher = ranks > 0 ? "mpirun --oversubscribe -n " + std::to_string(ranks) + " " : "";
    return Program(launcher + program() + " --config " + path("tiny.toml") + " --run.dir=" + path(name) +
                   " --train.steps=" + std::to_string(steps) +
                   " --train.global_batch=2 --train.micro_batch=1 --eval.samples=2 "
                   "--checkpoint.every=3 --module.vision.hidden=16 --module.vision.ffn=16 "
                   "--module.vision.layers=1 "
                   "--module.vision.heads=2 --module.language.hidden=16 --module.language.ffn=16 " +
                   more)
        .wait(240);
  }
  std::vector<double> losses(const std::string& name) const {
    std::vector<double> out;
    for (const StepMetrics& m : read_metrics(path(name) + "/metrics.jsonl")) out.push_back(m.loss.value());
    return out;
  }
  // Five steps on both devices: `tolerance` of the losses.
  void compare(int ranks, const std::string& arguments, double tolerance) const {
    const Outcome cpu = run(ranks, "cpu", arguments + " --device=cpu"),
                  cuda = run(ranks, "cuda", arguments + " --device=cuda");
    ASSERT_EQ(cpu.status, 0) << cpu.output;
    ASSERT_EQ(cuda.status, 0) << cuda.output;
    const std::vector<double> want = losses("cpu"), got = losses("cuda");
    ASSERT_EQ(want.size(), 5u);
    ASSERT_EQ(got.size(), 5u);
    for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(got[i], want[i], tolerance * want[i]) << "step " << i + 1;
  }

  TempDir directory_;
};

// Two layers of each kind of mixer. fp32: to rounding.
TEST_F(EmulatedTraining, Mamba2AndAttentionAsOnTheCpu) {
  compare(0, "--module.language.pattern=M* --module.language.rope_theta=10000", 1e-5);
}
TEST_F(EmulatedTraining, Mamba1AndGatedMlpAsOnTheCpu) {
  compare(0, "--module.language.pattern=S- --module.language.activation=swiglu --train.recompute=true", 1e-5);
}
// bf16: parameters and activations have 8 bits, so losses agree to about one in 2^8.
TEST_F(EmulatedTraining, Bf16AsOnTheCpu) {
  compare(0, "--module.language.pattern=M*-S --train.dtype=bf16 --module.language.kv_heads=2", 0x1p-8);
}
// Ranks that share a GPU talk through host memory.
TEST_F(EmulatedTraining, RanksThatShareADevice) {
  compare(2, "--module.language.pattern=M*- --layout.vision=tp2,dp1@0 --layout.language=tp2,dp1@0", 1e-5);
  compare(3, "--module.language.pattern=M*- --layout.vision=dp1@0 --layout.language=dp2@1", 1e-5);
}

TEST_F(EmulatedTraining, GoesOnFromACheckpointOfEitherDevice) {
  const std::string pattern = "--module.language.pattern=M*";
  for (const char* device : {"cuda", "cpu"}) {
    const Outcome whole = run(0, "whole", pattern + " --device=cuda");
    ASSERT_EQ(whole.status, 0) << whole.output;
    const std::vector<double> want = losses("whole");
    const Outcome again = run(0, "whole", pattern + " --resume=3 --device=" + device);
    ASSERT_EQ(again.status, 0) << again.output;
    EXPECT_NE(again.output.find("resuming after step 3"), std::string::npos) << again.output;
    const std::vector<double> got = losses("whole");
    ASSERT_EQ(want.size(), 5u);
    ASSERT_EQ(got.size(), 5u);
    // The same device gives the same bits, the other one the same to rounding.
    const double tolerance = device == std::string("cuda") ? 0 : 1e-5;
    for (size_t i = 0; i < 5; ++i)
      EXPECT_NEAR(got[i], want[i], tolerance * want[i]) << device << ", step " << i + 1;
    std::filesystem::remove_all(path("whole"));
  }
}

// What else the program does on a device: a profile, an evaluation, reading token by token.
TEST_F(EmulatedTraining, ProfilesEvaluatesAndReads) {
  const Outcome trained = run(0, "run",
                              "--module.language.pattern=M* --device=cuda --profile --train.recompute=true "
                              "--eval.every=3",
                              11);
  ASSERT_EQ(trained.status, 0) << trained.output;
  EXPECT_GE(trained.count("Gemm<float>"), 1) << trained.output;
  for (const char* device : {"cuda", "cpu"}) {
    const std::string end =
        " --config " + path("run/config.toml") + " --run.dir=" + path("run") + " --device=" + device;
    const Outcome eval = Program(program() + " eval --greedy 2" + end).wait(240);
    EXPECT_EQ(eval.status, 0) << eval.output;
    EXPECT_EQ(eval.count("2 of 2 samples judged as above"), 1) << eval.output;
    const Outcome read = Program(program() + " generate --prompt 12=" + end).wait(240);
    EXPECT_EQ(read.status, 0) << read.output;
  }
}

}  // namespace
}  // namespace mimo
