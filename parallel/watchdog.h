// Nothing hangs: a thread that knows the action in hand and ends the job when it does not end in time, or
// when communication has failed behind the calls.
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "parallel/communicator.h"
#include "parallel/stage.h"

namespace mimo {

class Watchdog : public Observer {
 public:
  // `describe` says what an action is and with whom; it is called once, from the watchdog's thread.
  Watchdog(Communicator& world, double timeout_seconds,
           std::function<std::string(const Action&)> describe = nullptr);
  // Ends the job too when a communicator of the world reports a failure, whether or not an action is in hand.
  Watchdog(World& world, double timeout_seconds,
           std::function<std::string(const Action&)> describe = nullptr);
  ~Watchdog() override;

  void begin(const Action&) override;
  void end(const Action&) override { end(); }
  // The same for what no plan names: reading a checkpoint, an evaluation. Time runs from begin to end; a
  // begin before the end of the last one is a sign of life too.
  void begin(std::string what);
  void end();

 private:
  Watchdog(Communicator& world, double timeout_seconds, std::function<std::string(const Action&)> describe,
           std::function<std::string()> failure);
  void watch();
  std::string in_hand() const;

  Communicator& world_;
  const double timeout_;
  const std::function<std::string(const Action&)> describe_;
  const std::function<std::string()> failure_;
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopped_ = false, active_ = false;
  std::chrono::steady_clock::time_point since_;
  std::optional<Action> action_;
  std::string what_;
  std::thread thread_;
};

}  // namespace mimo
