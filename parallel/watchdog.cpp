#include "parallel/watchdog.h"

#include <algorithm>

namespace mimo {

using Clock = std::chrono::steady_clock;

Watchdog::Watchdog(Communicator& world, double timeout_seconds,
                   std::function<std::string(const Action&)> describe)
    : Watchdog(world, timeout_seconds, std::move(describe), [&world] { return world.failure(); }) {}

Watchdog::Watchdog(World& world, double timeout_seconds, std::function<std::string(const Action&)> describe)
    : Watchdog(world.world(), timeout_seconds, std::move(describe), [&world] { return world.failure(); }) {}

Watchdog::Watchdog(Communicator& world, double timeout_seconds,
                   std::function<std::string(const Action&)> describe, std::function<std::string()> failure)
    : world_(world),
      timeout_(timeout_seconds),
      describe_(std::move(describe)),
      failure_(std::move(failure)),
      thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  stop_.notify_all();
  thread_.join();
}

void Watchdog::begin(const Action& action) {
  std::lock_guard lock(mutex_);
  active_ = true;
  since_ = Clock::now();
  action_ = action;
}

void Watchdog::begin(std::string what) {
  std::lock_guard lock(mutex_);
  active_ = true;
  since_ = Clock::now();
  action_.reset();
  what_ = std::move(what);
}

void Watchdog::end() {
  std::lock_guard lock(mutex_);
  active_ = false;
}

std::string Watchdog::in_hand() const {
  if (!action_) return what_;
  return describe_ ? describe_(*action_) : "an action of the plan";
}

void Watchdog::watch() {
  const auto period = std::chrono::duration<double>(std::clamp(timeout_ / 8, 0.01, 1.0));
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, period, [this] { return stopped_; })) {
    lock.unlock();  // it may take a while
    const std::string failure = failure_();
    lock.lock();
    if (!failure.empty())
      world_.abort("communication failed" + (active_ ? " in " + in_hand() : "") + ": " + failure);
    const double waited = std::chrono::duration<double>(Clock::now() - since_).count();
    if (!active_ || waited < timeout_) continue;
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.3g", waited);
    world_.abort("no progress for " + std::string(seconds) + " s (run.hang_timeout) in " + in_hand() +
                 ": another rank has stopped or is far behind");
  }
}

}  // namespace mimo
