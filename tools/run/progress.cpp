#include "tools/run/progress.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "tensor/clock.h"

namespace mimo {
namespace {

constexpr size_t kUsualWidth = 80;

// The terminal on which people see our output as it comes; -1 where none does. mpirun gives its ranks a
// pseudo-terminal, which has no size, wherever its own output goes; so under it the question is what its
// parent process writes to.
int open_terminal() {
  if (!isatty(STDOUT_FILENO)) return -1;
  if (!std::getenv("OMPI_COMM_WORLD_SIZE")) return STDOUT_FILENO;
  std::error_code error;
  const std::string target =
      std::filesystem::read_symlink(fmt::format("/proc/{}/fd/1", getppid()), error).string();
  if (error || (!target.starts_with("/dev/pts") && !target.starts_with("/dev/tty"))) return -1;
  const int fd = open(target.c_str(), O_RDONLY | O_NOCTTY | O_CLOEXEC);
  return fd >= 0 ? fd : STDOUT_FILENO;  // another user's: of unknown width
}

// Asked anew for every line: windows change.
size_t width_of(int terminal) {
  winsize size{};
  if (ioctl(terminal, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* given = std::getenv("COLUMNS");
  const int columns = given ? std::atoi(given) : 0;
  return columns > 0 ? static_cast<size_t>(columns) : kUsualWidth;
}

// Characters of UTF-8: the bytes that do not continue one.
size_t characters(const std::string& s) {
  return static_cast<size_t>(std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string joined(const std::vector<std::string>& parts) {
  std::string line;
  for (const std::string& p : parts)
    if (!p.empty()) line += (line.empty() ? "" : "  ") + p;
  return line;
}

}  // namespace

std::string fit(const std::vector<Column>& columns, size_t width) {
  std::vector<std::string> parts;
  std::vector<size_t> order;  // of giving way
  for (const Column& c : columns) order.push_back(parts.size()), parts.push_back(c.text);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return columns[a].number > columns[b].number; });
  for (size_t i : order) {
    if (characters(joined(parts)) <= width) break;
    parts[i] = columns[i].brief;
  }
  for (size_t i : order) {
    if (characters(joined(parts)) <= width) break;
    if (i != order.back()) parts[i].clear();
  }
  std::string line = joined(parts);
  while (characters(line) > width) line.pop_back();
  return line;
}

Progress::Progress(bool shown) : shown_(shown), terminal_(shown ? open_terminal() : -1) {}

Progress::~Progress() {
  if (terminal_ > STDERR_FILENO) close(terminal_);
}

void Progress::update(const std::vector<Column>& columns, bool line_here) {
  if (!shown_) return;
  if (terminal_ < 0 && line_here) write(fit(columns, std::string::npos) + '\n');
  if (terminal_ >= 0 && (line_here || now() - drawn_ > 0.1)) {
    // The last column of a terminal stays free: some begin a new line there.
    write("\r\033[K" + fit(columns, width_of(terminal_) - 1));
    drawn_ = now();
  }
}

void Progress::say(const std::string& text) {
  if (!shown_) return;
  write((terminal_ >= 0 ? "\r\033[K" : "") + text + '\n');
}

void Progress::write(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
  shown_ = false;
  std::fprintf(stderr,
               "note: standard output cannot be written (%s): the run goes on, metrics.jsonl tells how\n",
               std::strerror(errno));
}

double TimeLeft::after(int64_t step) const {
  const auto multiples = [&](int64_t every, int64_t last) {
    return every > 0 ? std::max<int64_t>(0, last / every - step / every) : 0;
  };
  const double steps = static_cast<double>(run_.steps - step);
  const double samples = static_cast<double>(
      multiples(run_.eval_every, run_.steps - 1) * std::min(run_.eval_samples, run_.heldout) + run_.heldout);
  const bool at_the_end = run_.save_every > 0 && run_.steps % run_.save_every != 0;
  const double saves = static_cast<double>(multiples(run_.save_every, run_.steps) + (at_the_end ? 1 : 0));
  // Until an evaluation was timed: forward is a third of a step.
  const double reading =
      sample_.amount > 0 ? sample_.of(samples) : step_.of(samples / static_cast<double>(run_.batch) / 3);
  return step_.of(steps) + reading + save_.of(saves);
}

std::string figure_text(std::optional<double> value, int digits) {
  if (!value) return "-";
  return std::isnan(*value) ? "nan" : fmt::format("{:.{}f}", *value, digits);  // NaN's sign means nothing
}

std::string time_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  return s < 60 ? fmt::format("{} s", s) : fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace mimo
