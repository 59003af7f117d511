// Where the time of a thread's kernel launches goes, by module and op.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tensor/device.h"

namespace mimo {

// Counts the launches of the thread that made it, for as long as it lives; without one a launch costs one
// test. Their times are those between events in the stream, so no launch waits for its kernel; where the
// device waits for the host, that counts with the launch it waited for.
class LaunchProfile {
 public:
  struct Entry {
    int64_t calls = 0;
    double seconds = 0, flop = 0;  // flop: of matrix products alone
  };
  LaunchProfile();
  ~LaunchProfile();
  LaunchProfile(const LaunchProfile&) = delete;
  // By module ("other": none) and op; waits for the last of the launches.
  std::map<std::pair<std::string, std::string>, Entry> entries() const;

 private:
  friend class LaunchTimer;
  struct Span {
    int label;
    const char* op;  // mangled
    double flop;
    Event begin, end;
  };
  std::vector<Span> spans_;
  LaunchProfile* before_;
};

class LaunchTimer {
 public:
  explicit LaunchTimer(const char* op, double flop) : profile_(current) {
    if (profile_) [[unlikely]]
      start(op, flop);
  }
  // Events report earlier work's errors, so a profiled launch can throw here; one that has thrown is not
  // counted.
  ~LaunchTimer() noexcept(false) {
    if (profile_) [[unlikely]]
      stop();
  }
  LaunchTimer(const LaunchTimer&) = delete;

 private:
  friend class LaunchProfile;
  void start(const char* op, double flop);
  void stop();
  static inline thread_local constinit LaunchProfile* current = nullptr;
  LaunchProfile* profile_;
  size_t span_ = 0;
  int exceptions_ = 0;  // under way when it began
};

}  // namespace mimo
