// Where the time of a thread's kernel launches goes, by module and op.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace mimo {

// Counts the launches of the thread that made it, for as long as it lives; without one a launch costs one
// test.
class LaunchProfile {
 public:
  struct Entry {
    int64_t calls = 0;
    double seconds = 0, flop = 0;  // flop: of matrix products alone
  };
  LaunchProfile();
  ~LaunchProfile();
  LaunchProfile(const LaunchProfile&) = delete;
  std::map<std::pair<std::string, std::string>, Entry> entries() const;  // by module ("other": none) and op

 private:
  friend class LaunchTimer;
  std::map<std::pair<int, const char*>, Entry> table_;  // by memory label and mangled op
  LaunchProfile* before_;
};

class LaunchTimer {
 public:
  explicit LaunchTimer(const char* op, double flop) : profile_(current) {
    if (profile_) [[unlikely]]
      start(op, flop);
  }
  // A profiled launch waits for its kernel, so an error of the device is thrown here; a launch that has
  // thrown is not counted.
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
  const char* op_ = nullptr;
  double flop_ = 0, since_ = 0;
  int exceptions_ = 0;  // under way when it began
};

}  // namespace mimo
