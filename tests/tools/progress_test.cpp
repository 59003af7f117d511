// What people see of a run: one line that fits their terminal, and a guess of the time left that holds.
#include "tools/run/progress.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "io/file.h"
#include "io/metrics.h"
#include "tests/tools/program.h"

namespace mimo {
namespace {

const std::vector<Column> kColumns = {{0, "step 1200/2000", "1200/2000"},
                                      {1, "loss 0.1234"},
                                      {3, "43879 tokens/s", "43879/s"},
                                      {2, "26 s left"},
                                      {5, "vision 4.8 + 7.2 language 3.5 + 5.2 ms", ""},
                                      {4, "idle 13 %", ""}};

TEST(Fit, KeepsWhatMattersMost) {
  const auto line = [](size_t width) { return fit(kColumns, width); };
  EXPECT_EQ(line(200),
            "step 1200/2000  loss 0.1234  43879 tokens/s  26 s left  vision 4.8 + 7.2 language 3.5 + 5.2 ms  "
            "idle 13 %");
  EXPECT_EQ(line(80), "step 1200/2000  loss 0.1234  43879 tokens/s  26 s left  idle 13 %");
  EXPECT_EQ(line(60), "step 1200/2000  loss 0.1234  43879 tokens/s  26 s left");
  EXPECT_EQ(line(50), "step 1200/2000  loss 0.1234  43879/s  26 s left");
  EXPECT_EQ(line(40), "1200/2000  loss 0.1234  26 s left");
  EXPECT_EQ(line(30), "1200/2000  loss 0.1234");
  EXPECT_EQ(line(9), "1200/2000");
  EXPECT_EQ(line(4), "1200");
  EXPECT_EQ(line(0), "");
}

TEST(Fit, CountsCharactersNotBytes) {
  const std::vector<Column> columns = {{0, "ééé"}, {1, "ü"}};
  EXPECT_EQ(fit(columns, 6), "ééé  ü");
  EXPECT_EQ(fit(columns, 5), "ééé");
  EXPECT_EQ(fit(columns, 2), "éé");
}

// Text between carriage returns and line feeds, without the sequence that clears a line.
std::vector<std::string> pieces(const std::string& output) {
  std::vector<std::string> out(1);
  for (const char c : output)
    if (c == '\r' || c == '\n')
      out.emplace_back();
    else
      out.back() += c;
  for (std::string& s : out)
    if (s.starts_with("\033[K")) s = s.substr(3);
  std::erase(out, "");
  return out;
}

// What `body` writes, as a process of its own, on a terminal of that many columns.
std::string on_terminal(unsigned short columns, const std::function<void()>& body) {
  winsize size{24, columns, 0, 0};
  int terminal = -1;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, &size);
  if (child == 0) {
    body();
    _exit(0);
  }
  std::string output;
  char block[4096];
  for (ssize_t n; (n = read(terminal, block, sizeof block)) > 0;)
    output.append(block, static_cast<size_t>(n));
  close(terminal);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0) << output;
  return output;
}

void resize_own_terminal(unsigned short columns) {
  const winsize size{24, columns, 0, 0};
  ioctl(STDOUT_FILENO, TIOCSWINSZ, &size);
}

TEST(Progress, FollowsTheWidthOfItsTerminal) {
  const std::string output = on_terminal(200, [] {
    unsetenv("OMPI_COMM_WORLD_SIZE");
    setenv("COLUMNS", "37", 1);
    Progress progress(true);
    for (const unsigned short columns : {200, 60, 31, 0}) {
      resize_own_terminal(columns);
      progress.update(kColumns, true);
    }
    unsetenv("COLUMNS");
    progress.update(kColumns, true);
    progress.say("done");
  });
  EXPECT_EQ(pieces(output),
            (std::vector<std::string>{fit(kColumns, 199), fit(kColumns, 59), fit(kColumns, 30),
                                      fit(kColumns, 36), fit(kColumns, 79), "done"}));
}

TEST(Progress, IsPlainLinesElsewhere) {
  testing::internal::CaptureStdout();
  Progress progress(true);
  progress.update(kColumns, false);
  progress.update(kColumns, true);
  progress.say("done");
  Progress(false).say("of another rank");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), fit(kColumns, 1000) + "\ndone\n");
}

// mpirun gives its ranks a terminal without a size, so the width is that of mpirun's own.
TEST(Progress, FitsUnderALauncher) {
  const TempDir files;
  write_tiny_dataset(files / "data.h5");
  write_tiny_config(files / "tiny.toml", files / "data.h5");
  const std::string command =
      "exec " + mimo(2, "--config " + (files / "tiny.toml").string() +
                            " --checkpoint.every=0 --run.dir=" + (files / "run").string());
  const std::string output = on_terminal(52, [&] {
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    unsetenv("COLUMNS");
    execlp("bash", "bash", "-c", command.c_str(), nullptr);
  });
  int lines = 0;
  for (const std::string& piece : pieces(output))
    if (piece.starts_with("step ") && piece.find("/20 ") != std::string::npos) {
      ++lines;
      EXPECT_LT(piece.size(), 52u) << piece;
    }
  EXPECT_GE(lines, 10) << output;
}

TEST(TimeLeft, CountsTheEvaluationsAndSavesToCome) {
  TimeLeft time(
      {.steps = 1000, .batch = 10, .eval_every = 100, .eval_samples = 50, .heldout = 400, .save_every = 300});
  for (int i = 0; i < 100; ++i) time.stepped(2);
  // Evaluations after steps 200 to 900 and of all samples at the end, at a third of a step's pace.
  EXPECT_DOUBLE_EQ(time.after(100), 900 * 2 + (8 * 50 + 400) * 2.0 / 10 / 3);
  time.evaluated(25, 50);
  EXPECT_DOUBLE_EQ(time.after(100), 900 * 2 + (8 * 50 + 400) * 0.5);
  time.saved(3);  // more after steps 300, 600, 900, and the last
  EXPECT_DOUBLE_EQ(time.after(100), 900 * 2 + (8 * 50 + 400) * 0.5 + 4 * 3);
  EXPECT_DOUBLE_EQ(time.after(900), 100 * 2 + 400 * 0.5 + 3);
  EXPECT_DOUBLE_EQ(time.after(1000), 400 * 0.5 + 3);

  TimeLeft plain({.steps = 10, .batch = 1, .heldout = 7});
  EXPECT_EQ(plain.after(0), 0) << "nothing is known yet";
  plain.stepped(1);
  plain.evaluated(7, 7);
  EXPECT_DOUBLE_EQ(plain.after(1), 9 + 7);
}

// Figures over steps are of the same samples; those of all of them come last and say so.
TEST(HeldOut, TheCurveComparesTheSameSamples) {
  const TempDir files;
  write_tiny_dataset(files / "data.h5");
  write_tiny_config(files / "tiny.toml", files / "data.h5");
  const std::string run = "--config " + (files / "tiny.toml").string() +
                          " --run.dir=" + (files / "run").string() +
                          " --train.steps=4 --eval.every=2 --eval.samples=5 --checkpoint.every=4";
  const Outcome o = run_mimo(0, run);
  ASSERT_EQ(o.status, 0) << o.output;
  std::map<int64_t, double> samples;
  for (const StepMetrics& m : read_metrics(files / "run" / "metrics.jsonl"))
    for (const auto& [name, value] : m.more)
      if (name == "held_out_samples") samples[m.step] = value;
  EXPECT_EQ(samples, (std::map<int64_t, double>{{2, 5}, {4, 5}}));
  EXPECT_EQ(o.count("held out after step 2: loss"), 1) << o.output;
  EXPECT_EQ(o.count("held out after step 4: loss"), 1) << o.output;
  EXPECT_EQ(o.count(" of 5\n"), 2) << o.output;
  EXPECT_EQ(o.count("held out, all 12 samples: loss"), 1) << o.output;
  const std::string page = read_text(files / "run" / "report.html");
  EXPECT_NE(page.find("Exact match of the first 5 held-out samples"), std::string::npos);
  EXPECT_NE(page.find("loss on all 12 held-out samples"), std::string::npos);

  // Both parts together are what `eval` reads in one.
  const Outcome eval = run_mimo(0, "eval " + run);
  const size_t begin = eval.output.find("loss "), end = eval.output.find('\n', begin);
  ASSERT_NE(begin, std::string::npos) << eval.output;
  EXPECT_EQ(o.count("held out, all 12 samples: " + eval.output.substr(begin, end - begin)), 1)
      << o.output << eval.output;
}

// With their own defaults, from a folder that has nothing.
TEST(AnyFolder, ProgramsFindTheirFiles) {
  const TempDir folder;
  const auto from_there = [&](const std::string& command) {
    return Program("bash -c 'cd " + folder.path().string() + " && exec " +
                   std::filesystem::current_path().string() + "/" + command + "'")
        .wait();
  };
  const Outcome plan = from_there("mimo plan --ranks=2");
  EXPECT_EQ(plan.status, 0) << plan.output;
  const Outcome info = from_there("mimo-data info data/digits.h5");
  EXPECT_EQ(info.status, 0) << info.output;
  const Outcome none = from_there("mimo plan --config=none.toml");
  EXPECT_EQ(none.status, 2) << none.output;
  EXPECT_EQ(none.count("looked in " + std::filesystem::canonical(folder.path()).string() + ", " +
                       std::filesystem::current_path().string()),
            1)
      << none.output;
}

}  // namespace
}  // namespace mimo
