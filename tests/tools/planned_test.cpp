// The planned time of a step: the same wherever it is told, and of the messages too.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "io/file.h"
#include "tests/tools/program.h"

namespace mimo {
namespace {

class Planned : public testing::Test {
 protected:
  Planned() {
    if (files) return;
    files = std::make_unique<TempDir>();
    write_tiny_dataset(path("data.h5"));
    write_tiny_config(path("tiny.toml"), path("data.h5"));
  }
  static std::string path(const std::string& name) { return (*files / name).string(); }
  static std::string run(int ranks, const std::string& command) {
    const Outcome o =
        run_mimo(ranks, command + " --config " + path("tiny.toml") + " --run.dir=" + path("run"));
    EXPECT_EQ(o.status, 0) << o.output;
    return o.output;
  }
  // What follows a word, to the end of its line or of its cell.
  static std::string after(const std::string& text, const std::string& word) {
    std::smatch found;
    const bool any = std::regex_search(text, found, std::regex(word + "([^\n<]*)"));
    EXPECT_TRUE(any) << word << " in " << text;
    return any ? found[1].str() : "";
  }
  static double milliseconds(const std::string& plan) { return std::stod(after(plan, "in 4 waves: ")); }

  static std::unique_ptr<TempDir> files;
};
std::unique_ptr<TempDir> Planned::files;

const std::string kRates =
    " --machine.flops=3e8 --machine.memory=2e9 --machine.latency=2e-4 --machine.bandwidth=4e8";

TEST_F(Planned, PlanStartAndReportTellTheSameStep) {
  for (const std::string layout : {"", " --layout.vision=tp2,dp1@0 --layout.language=tp2,dp1@0"}) {
    const std::string plan = run(0, "plan --ranks=2" + kRates + layout);
    const std::string start = run(2, "train --train.steps=2 --resume=never" + kRates + layout);
    const std::string report = read_text(path("run/report.html"));
    const std::string step = after(plan, "in 4 waves: ");
    EXPECT_NE(step.find(" ms, bubbles "), std::string::npos) << plan;
    EXPECT_EQ(step, after(start, "planned step: "));
    EXPECT_NE(report.find("): " + step + "."), std::string::npos) << "the drawing's caption";
    EXPECT_NE(report.find("<td>" + step), std::string::npos) << "the table";
    const auto summary = nlohmann::json::parse(read_text(path("run/summary.json")));
    EXPECT_NEAR(summary["step_seconds"]["planned"].get<double>(), 1e-3 * std::stod(step), 0.5e-5);
    EXPECT_GT(summary["step_seconds"]["measured"].get<double>(), 0);
    EXPECT_EQ(summary["machine"]["flops"], 3e8);
    EXPECT_EQ(after(plan, "rates of a rank: "), after(start, "rates of a rank: "));
  }
}

TEST_F(Planned, TensorParallelMessagesTakeTheirTime) {
  const std::string tp = "plan --ranks=2 --layout.vision=tp2,dp1@0 --layout.language=tp2,dp1@0";
  const double swift = milliseconds(run(0, tp + kRates + " --machine.latency=1e-9"));
  const std::string slow = run(0, tp + kRates + " --machine.latency=1e-3");
  // Every all_reduce is waited for: a millisecond for each of a rank's.
  const double rounds = std::stod(after(slow, "tensor parallel ")) / 2;
  EXPECT_GT(rounds, 50);
  EXPECT_NEAR(milliseconds(slow) - swift, rounds + 1, 0.1);  // and the sum over the world
}

// Rates are measured where they are not given; the policy of the schedule is the same by any of them.
TEST_F(Planned, MeasuresWhatIsNotGiven) {
  const std::string one = run(0, "plan --ranks=2"), two = run(2, "plan");
  EXPECT_NE(one.find("GB/s of memory (measured); "), std::string::npos) << one;
  EXPECT_NE(one.find("GB/s between ranks (assumed)\n"), std::string::npos) << one;
  EXPECT_NE(two.find("GB/s between ranks (measured)\n"), std::string::npos) << two;
  EXPECT_EQ(two.find("assumed"), std::string::npos) << two;
  EXPECT_EQ(after(one, "schedule: "), after(two, "schedule: "));
  const std::string given = run(0, "plan --ranks=2 --machine.flops=1e9");
  EXPECT_NE(given.find("1.0 GFLOP/s in the job's layers (given); "), std::string::npos) << given;
}

}  // namespace
}  // namespace mimo
