// Errors come before training and are printed once; a job that fails ends; a job that is asked to stop keeps
// what it has done.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <memory>
#include <thread>

#include "data/fit.h"
#include "io/checkpoint.h"
#include "io/file.h"
#include "io/hdf5.h"
#include "io/metrics.h"
#include "parallel/threads.h"
#include "tests/tools/program.h"

namespace mimo {
namespace {

namespace fs = std::filesystem;

// What the tests share: a dataset, a configuration and a finished run of two ranks with checkpoints of steps
// 1 and 2. No test changes them.
class Mimo : public testing::Test {
 protected:
  Mimo() {
    if (files) return;
    files = std::make_unique<TempDir>();
    write_tiny_dataset(path("data.h5"));
    write_tiny_config(path("tiny.toml"), path("data.h5"));
    const Outcome o = run_mimo(2, tiny("done") + " --train.steps=2 --checkpoint.every=1");
    if (o.status != 0) throw std::runtime_error("the run that tests share: " + o.output);
  }

  static std::string path(const std::string& name) { return (*files / name).string(); }
  static std::string tiny(const std::string& run) {
    return "--config " + path("tiny.toml") + " --run.dir=" + path(run);
  }
  // A copy of the finished run that a test may damage.
  static fs::path copy_of_done(const std::string& name) {
    fs::copy(path("done"), path(name), fs::copy_options::recursive);
    return path(name);
  }
  static int64_t steps_of(const std::string& run) {
    const fs::path file = path(run) + "/metrics.jsonl";
    if (!fs::exists(file)) return 0;
    const auto lines = read_metrics(file);
    return lines.empty() ? 0 : lines.back().step;
  }

  static Image heldout_image() { return open_dataset(path("data.h5"))->heldout.read(0).items.at(0).image(); }

  static std::unique_ptr<TempDir> files;
};

std::unique_ptr<TempDir> Mimo::files;

struct BadInput {
  int ranks;              // 0: without a launcher
  std::string arguments;  // after the tiny configuration's; a word before "--" is a command
  std::vector<std::string> words;
};

void truncate_to_half(const fs::path& file) { fs::resize_file(file, fs::file_size(file) / 2); }

// Flips a bit of the file's last quarter.
void damage(const fs::path& file) {
  std::string bytes = read_text(file);
  bytes[bytes.size() * 3 / 4] ^= 1;
  write_text(file, bytes);
}

TEST_F(Mimo, RefusesBadInputOnceBeforeItWritesAnything) {
  fs::copy(path("data.h5"), path("truncated.h5"));
  truncate_to_half(path("truncated.h5"));
  fs::copy(path("data.h5"), path("header-only.h5"));
  fs::resize_file(path("header-only.h5"), 100);
  write_text(path("text.h5"), "these are no data");
  write_tiny_dataset(path("other.h5"), 32);
  h5::File::create(path("foreign.h5")).write("x", std::vector<float>{1, 2, 3});
  {
    h5::File file = h5::File::create(path("newer.h5"));
    file.set_attribute("format", "mimo-dataset");
    file.set_attribute("version", int64_t{2});
  }
  {
    h5::File file = h5::File::create(path("hollow.h5"));
    file.set_attribute("format", "mimo-dataset");
    file.set_attribute("version", int64_t{1});
  }
  write_text(path("broken.toml"), "[train\nsteps = 3\n");
  const auto newest = [](const fs::path& run) { return run / "checkpoints" / "step_00000002"; };
  damage(newest(copy_of_done("altered")) / "rank_00000.h5");
  truncate_to_half(newest(copy_of_done("short")) / "rank_00001.h5");
  truncate_to_half(newest(copy_of_done("torn")) / "manifest.json");
  fs::remove(newest(copy_of_done("lost")) / "rank_00001.h5");
  write_text(copy_of_done("strange") / "metrics.jsonl", "no metrics\n");
  write_text(path("file"), "not a directory");
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);

  const std::string vision = " --layout.vision=", language = " --layout.language=";
  const std::vector<BadInput> cases = {
      // the command line and the configuration
      {0, "--train.stepz=3", {"train.stepz", "unknown key", "did you mean train.steps?"}},
      {2, "--train.stepz=3", {"train.stepz", "unknown key", "did you mean train.steps?"}},
      {3, "--train.steps=many", {"train.steps", "expected an integer", "found many"}},
      {0, "--train.steps=-1", {"train.steps", "expected an integer from 0", "found -1"}},
      {0, "--train.lr=fast", {"train.lr", "expected a number", "found fast"}},
      {0, "--train.global_batch=0", {"train.global_batch", "from 1", "found 0"}},
      {0, "--train.dtype=f16", {"train.dtype", "one of f32, bf16", "found \"f16\""}},
      {0, "--module.vision.kind=mlp", {"module.vision.kind", "vit", "found \"mlp\""}},
      {0, "--train.beta1=1", {"train.beta1", "below 1", "found 1"}},
      {2, "--train.eps=1e-50", {"train.eps", "found 1e-50, which is 0 in single precision"}},
      {0, "--run.hang_timeout=0", {"run.hang_timeout", "above 0", "found 0"}},
      {0, "--train.steps 3", {"expected --section.key=value", "--train.steps=VALUE"}},
      {0, "nonsense", {"unknown command", "train, eval, generate, plan", "found nonsense"}},
      {0, "evla", {"found evla", "did you mean eval?"}},
      {0, "plan train", {"expected --section.key=value", "found train"}},
      {0, "eval --train.steps=3 more", {"expected --section.key=value", "found more"}},
      {0, "generate --imag x.png", {"found --imag", "did you mean --image?"}},
      {0, "generate --imag=x.png", {"found --imag=x.png", "did you mean --image?"}},
      {0, "--device=gpu", {"device", "did you mean cuda?"}},
      {0, "--train.steps=2000.0", {"train.steps", "found 2000.0", "write 2000"}},
      {0, "--run.name=.. --run.dir=", {"run.name", "without /", "found .."}},
      {0, "--run.name=a/b --run.dir=", {"run.name", "without /", "found a/b"}},
      // what is absurd
      {0, "--train.micro_batch=4611686018427387904", {"train.micro_batch", "from 1 to 1000000"}},
      {2, "--train.global_batch=9223372036854775807", {"train.global_batch", "from 1 to 1000000"}},
      {0, "plan --train.global_batch=1000000 --train.micro_batch=1", {"train.micro_batch", "waves"}},
      {0, "plan --ranks=0", {"--ranks", "expected 1 to 4096, found 0"}},
      {0, "plan --ranks=-1", {"--ranks", "expected 1 to 4096, found -1"}},
      {0, "plan --ranks=100000", {"--ranks", "expected 1 to 4096, found 100000"}},
      {0, "eval --greedy=-1", {"--greedy", "found -1"}},
      {0, "--module.language.pattern=" + std::string(2000, 'M'), {"pattern", "at most 1000, found 2000"}},
      {0, "--train." + std::string(100000, 'x') + "=1", {"unknown key", "(100006 bytes)"}},
      {0, "--run.name=" + std::string(100000, 'x'), {"run.name", "at most 4096 bytes, found 100000"}},
      // what is no file
      {0, "--config " + path("pipe"), {"pipe", "expected a file, found a pipe"}},
      {0, "--config /dev/zero", {"/dev/zero", "expected a file, found a device"}},
      {2, "--data.path=" + path("pipe"), {"pipe", "expected a file, found a pipe"}},
      {0, "--data.path=/dev/zero", {"/dev/zero", "expected a file, found a device"}},
      {0, "generate --image " + path("pipe") + " --run.dir=" + path("done"), {"found a pipe"}},
      {0, "plan --svg " + path("pipe"), {"pipe", "expected a file, found a pipe"}},
      {0, "--device=cuda", {"device", "expected a GPU", "found none"}},
      {2, "--config", {"--config"}},
      {0, "--config " + path("none.toml"), {"none.toml", "cannot read"}},
      {0, "--config " + files->path().string(), {"expected a file, found a directory"}},
      {0, "--config " + path("broken.toml"), {"broken.toml:1", "not TOML"}},
      {0, "--run.dir=" + path("file/run"), {"run.dir", "expected a directory", "file/run"}},
      {2, "--run.dir=" + path("file"), {"run.dir", "expected a directory", "file"}},
      // the layout
      {4, vision + "dp2@0" + language + "dp2@1", {"layout", "none on rank 3", "language on ranks 1-2"}},
      {3, vision + "dp1@0" + language + "dp1@2", {"layout", "rank 1"}},
      {3, vision + "dp1@0" + language + "dp1@1", {"layout", "rank 2"}},
      {2, vision + "dp1@0" + language + "dp4@1", {"layout.language"}},
      {0, vision + "dp1@0,xp3" + language + "dp1@0", {"layout.vision", "xp3"}},
      {0, "--layout.speech=dp1@0", {"layout", "speech"}},
      {2,
       vision + "dp2@0" + language + "tp2,dp1@0 --module.language.heads=3 --module.language.kv_heads=3",
       {"heads"}},
      {2, vision + "dp2@0" + language + "tp2,dp1@0 --module.language.ssm_groups=1", {"ssm_groups"}},
      {2, vision + "tp2,dp1@0" + language + "dp2@0 --module.vision.heads=1", {"heads"}},
      {3,
       vision + "dp3@0" + language + "pp3,dp1@0 --module.language.pattern=M-",
       {"layout.language", "stages"}},
      // data
      {2, "--data.path=" + path("none.h5"), {"none.h5"}},
      {0, "--data.path=", {"data.path", "found nothing"}},
      {0, "--data.path=" + files->path().string(), {files->path().string()}},
      {0, "--data.path=" + path("truncated.h5"), {"truncated.h5"}},
      {0, "--data.path=" + path("header-only.h5"), {"header-only.h5"}},
      {0, "--data.path=" + path("text.h5"), {"text.h5"}},
      {0, "--data.path=" + path("foreign.h5"), {"foreign.h5", "expected format mimo-dataset", "found none"}},
      {0, "--data.path=" + path("newer.h5"), {"newer.h5", "expected 1, found 2"}},
      {0, "--data.path=" + path("hollow.h5"), {"hollow.h5", "vocab"}},
      {3, "--data.seq_length=10", {"data.seq_length", "expected at most 10 tokens"}},
      {0, "--module.vision.patch=7", {"patches do not divide", "multiples of"}},
      // checkpoints
      {2,
       "--run.dir=" + path("done") + " --module.language.hidden=64",
       {"step_00000002", "module.language.hidden was 32, is 64, which changes the model"}},
      {0,
       "--run.dir=" + path("done") + " --module.vision.layers=1 --train.seed=2",
       {"train.seed was 1, is 2, which changes the order of the data", "module.vision.layers was 2, is 1",
        "--resume.allow=train.seed,module.vision.layers goes on all the same"}},
      {0,
       "--run.dir=" + path("done") + " --module.vision.layers=3 --resume.allow=module.vision.layers",
       {"step_00000002", "another model"}},
      {0, "--run.dir=" + path("done") + " --resume.allow=train.sed", {"resume.allow", "mean train.seed?"}},
      {2,
       "--run.dir=" + path("done") + " --data.path=" + path("other.h5"),
       {"data.path was a dataset of digest", "the order of the data", "--resume.allow=data.path"}},
      {0,
       "eval --run.dir=" + path("done") + " --module.vision.activation=silu",
       {"module.vision.activation was \"gelu\", is \"silu\"", "--resume.allow=module.vision.activation"}},
      {0, "--run.dir=" + path("done") + " --resume=7", {"resume", "one of 1, 2", "found 7"}},
      {0, "--run.dir=" + path("done") + " --resume=99999999999999999999", {"resume", "a whole number"}},
      {2, "--run.dir=" + path("altered"), {"altered/", "step_00000002/rank_0000", "--resume=STEP"}},
      {3, "--run.dir=" + path("short"), {"short/", "rank_00001.h5", "wrong size", "--resume=STEP"}},
      {0, "--run.dir=" + path("torn"), {"torn/", "manifest.json", "--resume=STEP"}},
      {0, "--run.dir=" + path("lost"), {"lost/", "rank_00001.h5", "missing", "--resume=STEP"}},
      {2, "--run.dir=" + path("strange"), {"strange/metrics.jsonl:1", "not a line of metrics"}},
      // other commands
      {2, "generate --run.dir=" + path("done"), {"generate", "expected 1, found 2"}},
      {0, "generate", {"no checkpoint", "expected one in"}},
      {0, "generate --run.dir=" + path("done"), {"--image", "expected a PNG file, found none"}},
      {0, "generate --image " + path("none.png") + " --run.dir=" + path("done"), {"none.png"}},
      {0, "generate --image " + path("text.h5") + " --run.dir=" + path("done"), {"text.h5", "PNG"}},
      {0,
       "generate --prompt " + std::string(80, '1') + " --run.dir=" + path("done"),
       {"--prompt", "too long"}},
      {0, "eval", {"no checkpoint", "train first"}},
      {2, "eval --greedy 2 --run.dir=" + path("done"), {"--greedy", "expected 1, found 2"}},
      {0, "eval --greedy=x", {"--greedy"}},
      {0, "eval --run.dir=" + path("altered"), {"step_00000002/rank_0000", "--resume=STEP"}},
      {2, "plan --layout.vision=dp3@0 --layout.language=dp1@0", {"layout.vision"}},
  };

  const auto before = snapshot(files->path());
  struct Result {
    Outcome outcome;
    bool gone = false;
  };
  std::vector<Result> results(cases.size());
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i; (i = next++) < cases.size();) {
      const std::string& words = cases[i].arguments;
      const bool command = words.front() != '-' && words.front() != ' ' && words != "nonsense";
      const size_t end = command ? std::min(words.find(' '), words.size()) : 0;
      std::string arguments = words.substr(0, end);
      if (words.find("--config") == std::string::npos) arguments += " --config " + path("tiny.toml");
      if (words.find("--run.dir") == std::string::npos) arguments += " --run.dir=" + path("new");
      Program program(mimo(cases[i].ranks, arguments + " " + words.substr(end)));
      results[i].outcome = program.wait(20);
      results[i].gone = until([&] { return program.processes().empty(); }, 5);
    }
  };
  {
    // A launcher spends most of its time waiting: some run at once.
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back(work);
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    const Outcome& o = results[i].outcome;
    SCOPED_TRACE(std::to_string(cases[i].ranks) + " ranks: " + cases[i].arguments);
    EXPECT_EQ(o.status, 2) << o.output;
    EXPECT_LT(o.seconds, 5);
    EXPECT_EQ(o.errors(), 1) << o.output;
    EXPECT_EQ(o.count("error: ["), 1) << o.output;
    for (const std::string& word : cases[i].words)
      EXPECT_GE(o.count(word), 1) << word << "\nin: " << o.output;
    EXPECT_TRUE(results[i].gone) << "processes are left";
  }
  EXPECT_EQ(snapshot(files->path()), before) << "something was written";
}

TEST_F(Mimo, RefusesWhatOneRankAloneIsGiven) {
  const auto both = [](const std::string& first, const std::string& second) {
    return Program("mpirun --oversubscribe -n 1 " + first + " : -n 1 " + second).wait();
  };
  const std::string good = "./mimo " + tiny("alone");
  const Outcome key = both(good, good + " --train.stepz=3");
  EXPECT_EQ(key.status, 2);
  EXPECT_EQ(key.errors(), 1) << key.output;
  EXPECT_EQ(key.count("unknown key"), 1) << key.output;
  const Outcome threads = both(good, "env MIMO_THREADS=0 " + good);
  EXPECT_EQ(threads.status, 2);
  EXPECT_EQ(threads.errors(), 1) << threads.output;
  EXPECT_EQ(threads.count("error: [MIMO_THREADS] expected"), 1) << threads.output;
  EXPECT_FALSE(fs::exists(path("alone")));
}

// Without a launcher: the affinity mask, and the variables that say how many threads.
TEST_F(Mimo, UsesTheCoresAndThreadsThatItIsGiven) {
  const std::string core = std::to_string(available_cores().back());
  for (const auto& [command, found] : std::initializer_list<std::pair<std::string, std::string>>{
           {"taskset -c " + core, "1 rank on 1 core, 1 thread a rank, rank 0 on core " + core},
           {"env OMP_NUM_THREADS=3", "3 threads a rank (OMP_NUM_THREADS)"},
           {"env OMP_NUM_THREADS=3 MIMO_THREADS=2", "2 threads a rank (MIMO_THREADS)"}}) {
    const Outcome o =
        Program(command + " ./mimo --train.steps=1 " + tiny("given") + " --resume=never").wait();
    EXPECT_EQ(o.status, 0) << o.output;
    EXPECT_EQ(o.count(found), 1) << o.output;
  }
}

// A plan for machines with GPUs is drawn on one without.
TEST_F(Mimo, PlansForADeviceThatIsNotHere) {
  const Outcome o = run_mimo(
      0, "plan --config " + path("tiny.toml") + " --run.dir=" + path("new") + " --ranks=2 --device=cuda");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.count("layout on 2 ranks"), 1) << o.output;
}

TEST_F(Mimo, TheLastOfRepeatedArgumentsCounts) {
  const Outcome o =
      run_mimo(0, "plan --ranks=3 --config none.toml --train.global_batch=8 --config " + path("tiny.toml") +
                      " --train.global_batch=6 --ranks=2 --train.global_batch=8");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.count("layout on 2 ranks"), 1) << o.output;
  EXPECT_EQ(o.count("step of 8 samples"), 1) << o.output;
}

TEST_F(Mimo, SaysItsVersion) {
  const Outcome o = run_mimo(2, "--version");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.count("mimo 1."), 1) << o.output;
}

// White on black, four times as large: as most people draw digits.
TEST_F(Mimo, ReadsAnImageAsItIsDrawn) {
  Image image = heldout_image();
  write_png(image, path("plain.png"));
  for (uint8_t& x : image.pixels) x = static_cast<uint8_t>(255 - x);
  write_png(resize(image, 4 * image.height, 4 * image.width), path("large.png"));
  const auto read = [&](const std::string& file) {
    return run_mimo(
        0, "generate --config " + path("tiny.toml") + " --run.dir=" + path("done") + " --image " + file);
  };
  const Outcome plain = read(path("plain.png")), large = read(path("large.png"));
  EXPECT_EQ(plain.status, 0) << plain.output;
  EXPECT_EQ(large.status, 0) << large.output;
  EXPECT_EQ(large.output, path("large.png") +
                              ": scaled from 32 x 96 to 8 x 24, turned to its negative, to be like " +
                              "what the model was trained on\n" + plain.output);
}

TEST_F(Mimo, LittleMemoryIsAnErrorNotACrash) {
  const Outcome o = Program("bash -c \"ulimit -v 1000000; exec ./mimo " + tiny("narrow") +
                            " --module.language.hidden=8192 --module.language.ffn=65536\"")
                        .wait();
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_GE(o.count("out of memory"), 1) << o.output;
}

TEST_F(Mimo, HelpIsPrintedOnceWithStatus0) {
  const Outcome o = run_mimo(2, "--help");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.count("examples:"), 1) << o.output;
  EXPECT_EQ(run_mimo(0, "train --help").count("--train.steps="), 1);
  const std::string own = run_mimo(0, "generate --help").output;
  EXPECT_LT(own.find("--image"), own.find("--train.steps=")) << own;
  EXPECT_LT(own.find("--prompt"), own.find("--train.steps=")) << own;
}

// A run that would go on for hours, once it has done some steps.
class Endless : public Mimo {
 protected:
  std::unique_ptr<Program> start(int ranks, const std::string& run,
                                 const std::string& more = "--checkpoint.every=5") {
    auto program = std::make_unique<Program>(
        mimo(ranks, tiny(run) + " --train.steps=1000000 --checkpoint.keep=2 " + more));
    EXPECT_TRUE(until([&] { return steps_of(run) >= 7 || !program->running(); })) << program->output();
    EXPECT_TRUE(program->running()) << program->output();
    signalled_ = now_seconds();
    return program;
  }
  double seconds() const { return now_seconds() - signalled_; }
  // Nothing of it is left within so many seconds of the signal.
  void expect_gone(Program& program, double limit) {
    EXPECT_TRUE(until([&] { return program.processes().empty(); }, limit - seconds()));
    EXPECT_LT(seconds(), limit);
  }
  double signalled_ = 0;
};

TEST_F(Endless, ItsProcessesAreCalledMimo) {
  const auto program = start(0, "name");
  for (const pid_t pid : program->processes()) {
    std::string name;
    std::getline(std::ifstream("/proc/" + std::to_string(pid) + "/comm"), name);
    EXPECT_EQ(name, "mimo");
  }
  EXPECT_EQ(program->processes().size(), 1u);
}

TEST_F(Endless, SigtermToARankSavesAndResumes) {
  const auto program = start(3, "term");
  program->signal_rank(1, SIGTERM);
  const Outcome o = program->wait(20);
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.count("stopped by a signal after step"), 1) << o.output;
  expect_gone(*program, 10);
  const int64_t steps = steps_of("term");
  const auto newest = latest_checkpoint(path("term") + "/checkpoints");
  ASSERT_TRUE(newest);
  EXPECT_EQ(read_training_state(*newest).step, steps) << "of the last step that was done";
  const Outcome more = run_mimo(3, tiny("term") + " --train.steps=" + std::to_string(steps + 2));
  EXPECT_EQ(more.status, 0) << more.output;
  EXPECT_EQ(more.count("resuming after step " + std::to_string(steps) + " "), 1) << more.output;
  EXPECT_EQ(steps_of("term"), steps + 2);
}

TEST_F(Endless, SignalsNeverInterruptArithmetic) {
  // A handler may interrupt whatever a library holds half done: see stop_on_signals.
  const auto program = start(0, "handlers");
  std::map<std::string, uint64_t> masks;
  std::ifstream status("/proc/" + std::to_string(program->processes().at(0)) + "/status");
  for (std::string name; status >> name; status.ignore(1 << 20, '\n'))
    if (name.starts_with("Sig")) status >> std::hex >> masks[name];
  for (const int signal : {SIGTERM, SIGUSR1, SIGINT}) {
    EXPECT_EQ(masks.at("SigCgt:") >> (signal - 1) & 1, 0u) << "caught: " << strsignal(signal);
    EXPECT_EQ(masks.at("SigBlk:") >> (signal - 1) & 1, 1u) << "blocked: " << strsignal(signal);
  }
}

TEST_F(Endless, Sigusr1ToTheLauncherSaves) {
  const auto program = start(2, "usr1");
  program->signal(SIGUSR1);
  const Outcome o = program->wait(20);
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(read_training_state(*latest_checkpoint(path("usr1") + "/checkpoints")).step, steps_of("usr1"));
}

TEST_F(Endless, SigtermWithoutCheckpointsSaysSo) {
  const auto program = start(0, "term0", "--checkpoint.every=0");
  program->signal(SIGTERM);
  const Outcome o = program->wait(20);
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.count("no checkpoint, as checkpoint.every is 0"), 1) << o.output;
}

TEST_F(Endless, AKilledRankEndsTheJob) {
  const auto program = start(3, "killed");
  program->signal_rank(1, SIGKILL);
  const Outcome o = program->wait(20);
  EXPECT_NE(o.status, 0) << o.output;
  EXPECT_NE(o.status, 2) << o.output;
  expect_gone(*program, 10);
  const Outcome more =
      run_mimo(2, tiny("killed") + " --train.steps=" + std::to_string(steps_of("killed") + 1));
  EXPECT_EQ(more.status, 0) << more.output;
  EXPECT_EQ(more.count("resuming after step"), 1) << more.output;
}

TEST_F(Endless, AStoppedRankEndsTheJob) {
  const auto program = start(3, "stopped", "--run.hang_timeout=2");
  program->signal_rank(2, SIGSTOP);
  const Outcome o = program->wait(20);
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_EQ(o.count("(run.hang_timeout) in "), 1) << o.output;
  EXPECT_EQ(o.count("rank 2 does not answer"), 1) << o.output;
  EXPECT_EQ(o.errors(), 1) << o.output;
  expect_gone(*program, 2 + 8);
}

TEST_F(Endless, AnInterruptEndsTheJob) {
  const auto program = start(2, "interrupted");
  program->signal(SIGINT);
  const Outcome o = program->wait(20);
  EXPECT_NE(o.status, 0) << o.output;
  expect_gone(*program, 10);
}

TEST_F(Mimo, AFullDiskLeavesTheEarlierCheckpoint) {
  const fs::path run = copy_of_done("full");
  const auto before = snapshot(run / "checkpoints");
  // No file may grow beyond 64 KiB: less than the shards of a checkpoint.
  const Outcome o = Program("bash -c \"ulimit -f 64; exec ./mimo " + tiny("full") +
                            " --train.steps=4 --checkpoint.every=2\"")
                        .wait();
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_EQ(o.errors(), 1) << o.output;
  EXPECT_GE(o.count("step_00000004.tmp/rank_00000.h5"), 1) << o.output;
  EXPECT_EQ(snapshot(run / "checkpoints"), before);
}

TEST_F(Mimo, BeginningAnewSetsTheEarlierRunAside) {
  const fs::path run = copy_of_done("anew");
  const std::string never = tiny("anew") + " --resume=never --train.steps=1 --checkpoint.every=1";
  const Outcome first = run_mimo(0, never);
  EXPECT_EQ(first.status, 0) << first.output;
  EXPECT_EQ(first.count("beginning anew; what the earlier run wrote is in " + (run / "earlier.1").string()),
            1)
      << first.output;
  EXPECT_EQ(list_checkpoints(run / "earlier.1" / "checkpoints").size(), 2u);
  EXPECT_EQ(list_checkpoints(run / "checkpoints").size(), 1u);
  EXPECT_EQ(steps_of("anew/earlier.1"), 2);
  EXPECT_EQ(steps_of("anew"), 1);
  EXPECT_EQ(run_mimo(0, never).status, 0);
  EXPECT_EQ(list_checkpoints(run / "earlier.2" / "checkpoints").size(), 1u);
}

TEST_F(Mimo, GoesBackToAnEarlierStep) {
  const fs::path run = copy_of_done("back");
  damage(run / "checkpoints" / "step_00000002" / "rank_00001.h5");
  const Outcome o = run_mimo(0, tiny("back") + " --resume=1 --train.steps=3 --checkpoint.every=3");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.count("resuming after step 1 "), 1) << o.output;
  EXPECT_EQ(o.count("the next checkpoint replaces"), 1) << o.output;
  EXPECT_EQ(steps_of("back"), 3);
}

TEST_F(Mimo, HasNothingLeftToTrain) {
  copy_of_done("finished");
  const Outcome o = run_mimo(2, tiny("finished") + " --train.steps=2");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.count("nothing left to train"), 1) << o.output;
  EXPECT_EQ(steps_of("finished"), 2);
}

TEST_F(Mimo, TrainsWithoutCheckpoints) {
  const Outcome o = run_mimo(0, tiny("none") + " --train.steps=2 --checkpoint.every=0");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_FALSE(fs::exists(path("none") + "/checkpoints"));
  EXPECT_TRUE(fs::exists(path("none") + "/summary.json"));
}

}  // namespace
}  // namespace mimo
