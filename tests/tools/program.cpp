#include "tests/tools/program.h"
#include "tests/data/tokens.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

#include "data/digits.h"
#include "data/tokenizer.h"
#include "data/write_dataset.h"
#include "io/file.h"

namespace mimo {

namespace fs = std::filesystem;

namespace {

// "NAME=value" of a process, empty where it has none or is gone. The entries end with a zero byte each.
std::string environment_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/environ", std::ios::binary);
  return '\0' + std::string(std::istreambuf_iterator<char>(file), {});
}

bool has(const std::string& environment, const std::string& entry) {
  return environment.find('\0' + entry + '\0') != std::string::npos;
}

}  // namespace

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void pause_briefly() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

int Outcome::count(const std::string& what) const {
  int n = 0;
  for (size_t at = output.find(what); at != std::string::npos; at = output.find(what, at + 1)) ++n;
  return n;
}

Program::Program(const std::string& command) : start_(now_seconds()) {
  if (!fs::exists("./mimo")) throw std::runtime_error("no ./mimo here: build it, run from the repository");
  static std::atomic<int> next = 0;
  mark_ = "MIMO_TEST_JOB=" + std::to_string(getpid()) + "-" + std::to_string(next++);
  const std::string output = (directory_ / "output").string(), text = "exec " + command;
  const std::string path = std::string("PATH=") + std::getenv("PATH");
  const std::string temporary = "TMPDIR=" + directory_.path().string();  // mpirun leaves its sessions there
  const char* const arguments[] = {"bash", "-c", text.c_str(), nullptr};
  const char* const environment[] = {mark_.c_str(),
                                     path.c_str(),
                                     temporary.c_str(),
                                     "HOME=/tmp",
                                     "OMPI_ALLOW_RUN_AS_ROOT=1",
                                     "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                                     nullptr};
  launcher_ = fork();
  if (launcher_ < 0) throw std::runtime_error("fork");
  if (launcher_ == 0) {
    setpgid(0, 0);
    const int in = open("/dev/null", O_RDONLY);
    const int out = open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    dup2(in, 0), dup2(out, 1), dup2(out, 2);
    execve("/bin/bash", const_cast<char**>(arguments), const_cast<char**>(environment));
    _exit(127);
  }
}

Program::~Program() {
  for (pid_t pid : processes()) kill(pid, SIGKILL);
  if (running()) kill(launcher_, SIGKILL), waitpid(launcher_, &status_, 0);
}

bool Program::running() {
  if (!ended_) ended_ = waitpid(launcher_, &status_, WNOHANG) == launcher_;
  return !ended_;
}

Outcome Program::wait(double limit_seconds) {
  Outcome o;
  if (!until([&] { return !running(); }, limit_seconds)) {
    for (pid_t pid : processes()) kill(pid, SIGKILL);
    waitpid(launcher_, &status_, 0);
    ended_ = true;
  }
  o.seconds = now_seconds() - start_;
  o.status = WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  o.output = output();
  return o;
}

std::string Program::output() const {
  const fs::path file = directory_ / "output";
  return fs::exists(file) ? read_text(file) : "";
}

void Program::signal(int number) const { kill(launcher_, number); }

void Program::signal_rank(int rank, int number) const {
  for (pid_t pid : processes())
    if (has(environment_of(pid), "OMPI_COMM_WORLD_RANK=" + std::to_string(rank))) kill(pid, number);
}

std::vector<pid_t> Program::processes() const {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const pid_t pid = std::stoi(name);
    if (has(environment_of(pid), mark_)) found.push_back(pid);
  }
  return found;
}

std::string mimo(int ranks, const std::string& arguments) {
  if (ranks == 0) return "./mimo " + arguments;
  return "mpirun --oversubscribe -n " + std::to_string(ranks) + " ./mimo " + arguments;
}

Outcome run_mimo(int ranks, const std::string& arguments, double limit_seconds) {
  return Program(mimo(ranks, arguments)).wait(limit_seconds);
}

void write_tiny_dataset(const fs::path& path, int64_t train, int64_t heldout) {
  static const Digits digits = read_digits("data/optdigits/digits.csv");
  DigitsOptions options;
  const DatasetHeader header{.vocab = kVocab,
                             .modalities = {{.name = "image", .mean = {0.7}, .std = {0.4}}},
                             .kinds = {"one image", "two images", "sum"},
                             .license = "a test's"};
  write_dataset(path, header,
                {{"train", train, train, [&](int64_t i) { return train_sample(digits, options, i); }},
                 {"heldout", heldout, heldout, [&](int64_t i) { return heldout_sample(digits, 1, i); }}});
}

void write_tiny_config(const fs::path& config, const fs::path& dataset) {
  write_text(config, R"(
[data]
path = ")" + dataset.string() +
                         R"("
seq_length = 64
[train]
steps = 20
global_batch = 8
micro_batch = 2
lr = 1e-3
[checkpoint]
every = 10
keep = 0
[module.vision]
kind = "vit"
hidden = 32
layers = 2
heads = 4
ffn = 32
patch = 4
class_tokens = 2
grid = 12
projector = "mlp"
projector_ffn = 32
[module.language]
kind = "hybrid"
pattern = "M*-"
hidden = 32
heads = 4
kv_heads = 4
head_dim = 8
ffn = 64
ssm_heads = 4
ssm_head_dim = 8
ssm_groups = 2
ssm_state = 8
ssm_chunk = 8
)");
}

std::map<std::string, std::pair<uintmax_t, fs::file_time_type>> snapshot(const fs::path& directory) {
  std::map<std::string, std::pair<uintmax_t, fs::file_time_type>> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    files[entry.path().string()] = {entry.is_regular_file() ? entry.file_size() : 0, entry.last_write_time()};
  return files;
}

}  // namespace mimo
