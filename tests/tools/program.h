// ./mimo as a user runs it: started, watched, signalled and counted from outside, on a dataset of a few
// samples.
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tests/io/temp_dir.h"

namespace mimo {

struct Outcome {
  int status = 0;  // of the launcher; 128 + signal where that ended it
  double seconds = 0;
  std::string output;  // of all ranks, both streams
  int count(const std::string& what) const;
  int errors() const { return Outcome{0, 0, '\n' + output}.count("\nerror: "); }  // lines that begin so
};

// A running command in an environment of its own. All of its processes, wherever they went, carry a mark in
// their environment, so that none is overlooked.
class Program {
 public:
  // The text is a shell's, such as "mpirun -n 2 ./mimo"; `exec` is put before it.
  explicit Program(const std::string& command);
  ~Program();  // kills what is left
  Program(const Program&) = delete;

  Outcome wait(double limit_seconds = 60);  // for its end; past the limit it is killed, and the status is 137
  void signal(int number) const;            // to the launcher
  void signal_rank(int rank, int number) const;
  bool running();
  std::vector<pid_t> processes() const;  // all that are left
  std::string output() const;

 private:
  TempDir directory_;
  std::string mark_;
  pid_t launcher_ = 0;
  bool ended_ = false;
  int status_ = 0;
  double start_;
};

double now_seconds();
// Polls until it holds; false after the limit.
template <class F>
bool until(F&& holds, double limit_seconds = 20);
void pause_briefly();

// "mpirun ... -n RANKS ./mimo", or "./mimo" alone for one rank without a launcher (ranks = 0).
std::string mimo(int ranks, const std::string& arguments);
Outcome run_mimo(int ranks, const std::string& arguments, double limit_seconds = 60);

// A dataset of `train` and `heldout` samples of the digits task.
void write_tiny_dataset(const std::filesystem::path&, int64_t train = 64, int64_t heldout = 12);
// A configuration for it of two small modules; every key can be given again on the command line.
void write_tiny_config(const std::filesystem::path& config, const std::filesystem::path& dataset);

// Every file below a directory, with its size and time of change.
std::map<std::string, std::pair<uintmax_t, std::filesystem::file_time_type>> snapshot(
    const std::filesystem::path&);

template <class F>
bool until(F&& holds, double limit_seconds) {
  const double end = now_seconds() + limit_seconds;
  while (!holds()) {
    if (now_seconds() > end) return false;
    pause_briefly();
  }
  return true;
}

}  // namespace mimo
