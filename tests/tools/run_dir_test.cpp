// A run's directory has one owner, and all ranks of a run are of the same kind: what would mix or fail late
// is refused at start.
#include <gtest/gtest.h>

#include <csignal>
#include <memory>

#include "io/checkpoint.h"
#include "io/file.h"
#include "io/lock.h"
#include "io/metrics.h"
#include "tests/tools/program.h"

namespace mimo {
namespace {

namespace fs = std::filesystem;

class RunDir : public testing::Test {
 protected:
  RunDir() {
    write_tiny_dataset(path("data.h5"));
    write_tiny_config(path("tiny.toml"), path("data.h5"));
  }
  std::string path(const std::string& name) const { return (files_ / name).string(); }
  std::string tiny(const std::string& run, int64_t steps = 2) const {
    return "--config " + path("tiny.toml") + " --run.dir=" + path(run) +
           " --train.steps=" + std::to_string(steps);
  }
  std::unique_ptr<Program> endless(const std::string& run) const {
    auto program = std::make_unique<Program>(mimo(0, tiny(run, 1000000)));
    const fs::path metrics = path(run) + "/metrics.jsonl";
    EXPECT_TRUE(until([&] { return fs::exists(metrics) && fs::file_size(metrics) > 0; }))
        << program->output();
    return program;
  }
  static void expect_refused(const Outcome& o, const std::vector<std::string>& words) {
    EXPECT_EQ(o.status, 2) << o.output;
    EXPECT_EQ(o.errors(), 1) << o.output;
    for (const std::string& word : words) EXPECT_GE(o.count(word), 1) << word << "\nin: " << o.output;
  }
  TempDir files_;
};

TEST_F(RunDir, HasOneOwnerUntilThatIsGone) {
  auto first = endless("owned");
  const std::string pid = std::to_string(first->processes().at(0));
  expect_refused(run_mimo(2, tiny("owned")),
                 {"[run.dir] in use", "owned by pid " + pid + " on host ", " since "});
  EXPECT_TRUE(first->running());
  first->signal(SIGKILL);
  first->wait();
  EXPECT_NE(lock_text(path("owned")), "") << "it had no time to remove it";
  const Outcome next = run_mimo(2, tiny("owned") + " --resume=never");
  EXPECT_EQ(next.status, 0) << next.output;
  EXPECT_EQ(lock_text(path("owned")), "") << "released at the end";
}

TEST_F(RunDir, IsReleasedByARunThatFails) {
  fs::create_directories(path("failed"));
  fs::create_directory(path("failed/config.toml"));
  EXPECT_NE(run_mimo(2, tiny("failed")).status, 0);
  EXPECT_EQ(lock_text(path("failed")), "");
}

TEST_F(RunDir, ThatCannotTakeCheckpointsIsFoundBeforeTheFirstStep) {
  fs::create_directories(path("blocked"));
  write_text(path("blocked/checkpoints"), "in the way");
  expect_refused(run_mimo(2, tiny("blocked")),
                 {"[run.dir] expected a directory that can be written", "blocked"});
  fs::create_directories(path("late/report.html"));
  expect_refused(run_mimo(0, tiny("late")), {"[run.dir]", "late/report.html"});
  for (const char* run : {"blocked", "late"}) EXPECT_FALSE(fs::exists(path(run) + "/metrics.jsonl"));
}

TEST_F(RunDir, MustBeSharedByAllRanks) {
  for (const char* machine : {"a", "b"}) fs::create_directory(path(machine));
  const auto command = [&](const std::string& more) {
    const std::string self = fs::current_path().string() + "/mimo",
                      arguments = " --config " + path("tiny.toml") + " --run.dir=run --train.steps=2 " + more;
    return "mpirun --oversubscribe -n 1 -wdir " + path("a") + " " + self + arguments + " : -n 1 -wdir " +
           path("b") + " " + self + arguments;
  };
  expect_refused(Program(command("")).wait(), {"[run.dir] not shared by all ranks: expected on rank 1"});
  const Outcome alone = Program(command("--checkpoint.every=0")).wait();
  EXPECT_EQ(alone.status, 0) << "only rank 0 writes there: " << alone.output;
}

TEST_F(RunDir, RanksThatDifferAreNamed) {
  const auto both = [&](const std::string& more) {
    const std::string good = "./mimo " + tiny("mixed");
    return Program("mpirun --oversubscribe -n 1 " + good + " : -n 1 " + more).wait();
  };
  expect_refused(
      both("./mimo " + tiny("mixed", 3)),
      {"[rank 1] another configuration than rank 0's: expected train.steps = 2, found train.steps = 3"});
  fs::copy_file("mimo", path("mimo"));
  Program("bash -c 'echo >> " + path("mimo") + "'").wait();
  expect_refused(both(path("mimo") + " " + tiny("mixed")), {"[rank 1] another build of this program"});
  // The same name, another content.
  for (const char* machine : {"a", "b"}) fs::create_directory(path(machine));
  write_tiny_dataset(path("a/data.h5"));
  write_tiny_dataset(path("b/data.h5"), 32);
  const std::string self = fs::current_path().string() + "/mimo ";
  const std::string arguments = self + tiny("mixed") + " --data.path=data.h5";
  expect_refused(Program("mpirun --oversubscribe -n 1 -wdir " + path("a") + " " + arguments +
                         " : -n 1 -wdir " + path("b") + " " + arguments)
                     .wait(),
                 {"[rank 1] another dataset than rank 0's: expected data.h5 "});
  EXPECT_FALSE(fs::exists(path("mixed")));
}

TEST_F(RunDir, ProcessesThatEachBelieveToBeAloneAreRefused) {
  const auto under = [&](const std::string& variables) {
    return Program("env " + variables + " ./mimo " + tiny("alone")).wait();
  };
  expect_refused(under("PMI_RANK=0 PMI_SIZE=2"), {"[launcher] it started 2 processes (PMI_SIZE)"});
  expect_refused(under("SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=4"),
                 {"4 processes (SLURM_STEP_NUM_TASKS)", "--mpi=pmix"});
  const Outcome second = under("SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=4");
  EXPECT_EQ(second.status, 2);
  EXPECT_EQ(second.output, "") << "one message is enough";
  EXPECT_FALSE(fs::exists(path("alone")));
  const Outcome allocated = under("SLURM_NTASKS=4 SLURM_JOB_ID=7");  // in an allocation's shell
  EXPECT_EQ(allocated.status, 0) << allocated.output;
}

TEST_F(RunDir, NamesThatAreNotUtf8AreRefusedAtOnce) {
  expect_refused(run_mimo(0, tiny("x") + " --run.name=$'\\xff'"), {"run.name", "not UTF-8"});
}

// Nothing that the program opens may become standard output: what is printed would go there.
TEST_F(RunDir, ClosedStreamsReachNoFile) {
  const Outcome o = Program("./mimo " + tiny("closed", 3) + " <&- >&- 2>&-").wait();
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(read_metrics(path("closed") + "/metrics.jsonl").size(), 3u);
  const Outcome piped =
      Program("bash -c './mimo " + tiny("piped", 40) + " | true; exit ${PIPESTATUS[0]}'").wait();
  EXPECT_EQ(piped.status, 0) << piped.output;
  EXPECT_EQ(read_metrics(path("piped") + "/metrics.jsonl").size(), 40u);
}

TEST_F(RunDir, ARunGoesOnWhereItsOutputIsFull) {
  const Outcome o = Program("./mimo " + tiny("full", 3) + " >/dev/full").wait();
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.count("note: standard output cannot be written"), 1) << o.output;
  EXPECT_EQ(read_metrics(path("full") + "/metrics.jsonl").size(), 3u);
}

TEST_F(RunDir, WhatWasAskedForAndCouldNotBePrintedIsAnError) {
  const std::string plan = "./mimo plan --config " + path("tiny.toml");
  for (const std::string& command :
       {plan, std::string("./mimo --help"), "./mimo-data info " + path("data.h5")}) {
    const Outcome o = Program(command + " >/dev/full").wait();
    EXPECT_EQ(o.status, 1) << command << ": " << o.output;
    EXPECT_EQ(o.count("[standard output] cannot write: "), 1) << command << ": " << o.output;
  }
}

TEST_F(RunDir, AnInterruptSaves) {
  const auto program = endless("interrupted");
  program->signal(SIGINT);
  const Outcome o = program->wait(20);
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.count("stopped by a signal after step"), 1) << o.output;
  const auto newest = latest_checkpoint(path("interrupted") + "/checkpoints");
  ASSERT_TRUE(newest);
  EXPECT_EQ(read_training_state(*newest).step,
            read_metrics(path("interrupted") + "/metrics.jsonl").back().step);
}

}  // namespace
}  // namespace mimo
