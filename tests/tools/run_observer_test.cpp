// What a run tells those that watch it, seen by two that this program registers: one told before, one told
// after all others.
#include "tools/run/run_observer.h"

#include <gtest/gtest.h>

#include <fstream>

#include "io/checkpoint.h"
#include "io/lock.h"
#include "tests/tools/program.h"

namespace mimo {
namespace {

using Words = std::vector<std::string>;

// What the two heard, while a test asks for it; the figures of the last.
struct Heard {
  Words first, last;
  std::string throw_at;             // what the last one heard when it throws
  std::vector<size_t> lines_first;  // lines of metrics.jsonl when a record came to each
  std::vector<size_t> lines_last;
  std::vector<StepMetrics> history, records;
  double step_seconds = 0;
  RunEnd end;
};
Heard* heard = nullptr;

class Diary : public RunObserver {
 public:
  Diary(const RunContext& run, bool last) : run_(run), last_(last) {
    heard->history = run.history;
    EXPECT_TRUE(std::filesystem::exists(run.job.run_dir / "lock")) << "the directory is the run's";
    EXPECT_EQ(std::filesystem::exists(run.job.run_dir / "metrics.jsonl"), last || !run.history.empty());
    note("made");
  }
  void started() override {
    EXPECT_EQ(run_.parameters.size(), 2u);
    EXPECT_GT(run_.planned->timeline.makespan, 0);
    note("started");
  }
  void begin_step() override { note("begin"); }
  void end_step(const StepResult& r, double seconds, const std::vector<double>& clock) override {
    EXPECT_EQ(clock.size(), 2u * 2 + 3);
    heard->step_seconds = seconds;
    note("end", r.step);
  }
  void evaluated(int64_t step, const Evaluation& e, double) override {
    EXPECT_EQ(e.samples(), 4);
    note("evaluated", step);
  }
  void recorded(const StepRecord& r) override {
    EXPECT_EQ(r.metrics.step_seconds, heard->step_seconds);
    (last_ ? heard->lines_last : heard->lines_first)
        .push_back(read_metrics(run_.job.run_dir / "metrics.jsonl").size());
    if (last_) heard->records.push_back(r.metrics);
    note("recorded", r.result.step);
  }
  void saved(int64_t step, double) override {
    EXPECT_TRUE(list_checkpoints(run_.checkpoints()).contains(step));
    note("saved", step);
  }
  void stopped(int64_t step) override { note("stopped", step); }
  void finished(const RunEnd& end) override {
    heard->end = end;
    EXPECT_EQ(std::filesystem::exists(run_.job.run_dir / "report.html"), last_);
    note("finished", end.step);
  }

 private:
  void note(std::string what, int64_t step = -1) {
    if (step >= 0) what += ' ' + std::to_string(step);
    (last_ ? heard->last : heard->first).push_back(what);
    if (last_ && what == heard->throw_at) throw std::runtime_error(what);
  }
  const RunContext& run_;
  bool last_;
};

template <bool last>
std::unique_ptr<RunObserver> diary(const RunContext& run) {
  return heard ? std::make_unique<Diary>(run, last) : nullptr;
}
const Registry<RunObserverKind>::Entry first{{.name = "the first", .order = -1, .make = diary<false>}},
    last{{.name = "the last", .order = 1000, .file = "diary", .make = diary<true>}};

class Watched : public testing::Test {
 protected:
  Watched() {
    heard = &heard_;
    write_tiny_dataset(path("data.h5"));
    write_tiny_config(path("tiny.toml"), path("data.h5"));
  }
  ~Watched() override { heard = nullptr, Trainer::stop_requested = false; }
  std::string path(const std::string& name) const { return (files_ / name).string(); }
  int run(int64_t steps) {
    CommandLine line;
    line.config = path("tiny.toml");
    line.overrides = {"--run.dir=" + path("run"), "--train.steps=" + std::to_string(steps), "--eval.every=2",
                      "--eval.samples=4", "--checkpoint.every=2"};
    return train(line, *world_);
  }

  TempDir files_;
  std::unique_ptr<World> world_ = self_world();
  Heard heard_;
};

TEST_F(Watched, IsToldOfAllThatHappensInOrder) {
  EXPECT_EQ(run(3), 0);
  EXPECT_EQ(heard_.last, (Words{"made", "started", "begin", "end 1", "recorded 1", "begin", "end 2",
                                "evaluated 2", "recorded 2", "saved 2", "begin", "end 3", "evaluated 3",
                                "recorded 3", "saved 3", "finished 3"}));
  EXPECT_EQ(heard_.first, heard_.last);
  EXPECT_EQ(heard_.lines_first, (std::vector<size_t>{0, 1, 2}));
  EXPECT_EQ(heard_.lines_last, (std::vector<size_t>{1, 2, 3}));
  EXPECT_EQ(heard_.records, read_metrics(path("run") + "/metrics.jsonl"));
  EXPECT_TRUE(heard_.history.empty());
  EXPECT_EQ(heard_.end.steps_here, 3);
  EXPECT_EQ(heard_.end.evaluation.samples(), 12);
  EXPECT_EQ(heard_.end.shown.size(), 12u);
  EXPECT_EQ(heard_.end.peaks.size(), 3u) << "two modules and the optimizer";
}

// A run that goes on after step 2, as its third step was lost, tells of the first two.
TEST_F(Watched, KnowsWhatWasBefore) {
  EXPECT_EQ(run(3), 0);
  const auto before = read_metrics(path("run") + "/metrics.jsonl");
  std::filesystem::remove_all(path("run") + "/checkpoints/step_00000003");
  std::filesystem::remove(path("run") + "/report.html");
  heard_ = {};
  EXPECT_EQ(run(3), 0);
  EXPECT_EQ(heard_.history, std::vector<StepMetrics>(before.begin(), before.begin() + 2));
  EXPECT_EQ(heard_.last, (Words{"made", "started", "begin", "end 3", "evaluated 3", "recorded 3", "saved 3",
                                "finished 3"}));
  EXPECT_EQ(heard_.end.steps_here, 1);
}

TEST_F(Watched, BySignalEndsWithItsCheckpoint) {
  Trainer::stop_requested = true;
  EXPECT_EQ(run(3), 0);
  EXPECT_EQ(heard_.last, (Words{"made", "started", "begin", "end 1", "recorded 1", "saved 1", "stopped 1"}));
}

TEST_F(Watched, ByOneThatFailsFails) {
  for (const char* what : {"made", "recorded 2", "finished 3"}) {
    heard_ = {}, heard_.throw_at = what;
    std::filesystem::remove_all(path("run"));
    EXPECT_THROW(run(3), std::runtime_error) << what;
    EXPECT_EQ(heard_.last.back(), what) << "it is told no more";
    EXPECT_EQ(lock_text(path("run")), "");
  }
}

// A new run moves the files of all that watch away.
TEST_F(Watched, LeavesItsFilesToTheEarlierRun) {
  EXPECT_EQ(run(1), 0);
  std::ofstream(path("run") + "/diary") << "dear diary";
  std::ofstream(path("run") + "/notes") << "a user's";
  std::filesystem::remove_all(path("run") + "/checkpoints");
  heard_ = {};
  EXPECT_EQ(run(1), 0);
  EXPECT_TRUE(std::filesystem::exists(path("run") + "/earlier.1/diary"));
  EXPECT_TRUE(std::filesystem::exists(path("run") + "/earlier.1/report.html"));
  EXPECT_FALSE(std::filesystem::exists(path("run") + "/earlier.1/notes"));
}

}  // namespace
}  // namespace mimo
