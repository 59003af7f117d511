#include "tools/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>

namespace mimo {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Whether people see our output as it comes. mpirun gives its ranks a pseudo-terminal wherever its own output
// goes, so under it the question is what its parent process writes to.
bool output_is_terminal() {
  if (!isatty(STDOUT_FILENO)) return false;
  if (!std::getenv("OMPI_COMM_WORLD_SIZE")) return true;
  std::error_code error;
  const auto target = std::filesystem::read_symlink(fmt::format("/proc/{}/fd/1", getppid()), error);
  return !error && (target.string().starts_with("/dev/pts") || target.string().starts_with("/dev/tty"));
}

}  // namespace

Progress::Progress(bool shown) : shown_(shown), terminal_(output_is_terminal()) {}

void Progress::update(const std::string& text, bool line_here) {
  if (!shown_) return;
  if (!terminal_ && line_here) fmt::print("{}\n", text);
  if (terminal_ && (line_here || now() - drawn_ > 0.1)) fmt::print("\r\033[K{}", text), drawn_ = now();
  std::fflush(stdout);
}

void Progress::say(const std::string& text) {
  if (!shown_) return;
  fmt::print("{}{}\n", terminal_ ? "\r\033[K" : "", text);
  std::fflush(stdout);
}

std::string time_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  return s < 60 ? fmt::format("{} s", s) : fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace mimo
