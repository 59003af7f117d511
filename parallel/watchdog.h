// Nothing hangs: a thread of each process watches what it has in hand, and ends the job when no rank gets on,
// or when communication has failed behind the calls. It watches progress and not the clock alone: a save, an
// evaluation or a slow disk may take as long as they get on, on the ranks that wait for them too.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "parallel/heartbeat.h"
#include "parallel/stage.h"
#include "parallel/world.h"

namespace mimo {

class Watchdog : public Observer {
 public:
  // Collective where it is the process's first: that one, over the world, connects the ranks, and those that
  // live beside it share the connections. The job ends when something is in hand on some rank and for
  // `timeout_seconds` no rank has got on (begin, end, advance(), bytes written). Rank 0 says which rank is
  // the cause: one that does not answer, else one that does not wait for others; rank 1 speaks of rank 0.
  // Time for which this process stood still itself (a stopped job) does not count. Ranks that cannot be
  // connected each watch their own progress alone. `describe` says what an action is and with whom; it is
  // called from the watchdog's thread. `limit` is what a message calls the timeout.
  Watchdog(Communicator& world, double timeout_seconds,
           std::function<std::string(const Action&)> describe = nullptr,
           std::string limit = "run.hang_timeout");
  // Ends the job too when a communicator of the world reports a failure, whether or not an action is in hand.
  Watchdog(World& world, double timeout_seconds,
           std::function<std::string(const Action&)> describe = nullptr);
  ~Watchdog() override;

  void begin(const Action&) override;
  void end(const Action&) override { end(); }
  // The same for what no plan names: reading a checkpoint, an evaluation.
  void begin(std::string what);
  void end();

 private:
  class Thread;
  Watchdog(Communicator& world, double timeout_seconds, std::function<std::string(const Action&)> describe,
           std::function<std::string()> failure, std::string limit);
  // What is in hand, if anything.
  std::optional<std::string> in_hand();

  Communicator& world_;
  const double timeout_;
  const std::function<std::string(const Action&)> describe_;
  const std::function<std::string()> failure_;
  const std::string limit_;
  std::mutex mutex_;  // of the following
  bool active_ = false;
  std::optional<Action> action_;
  std::string what_;
  std::shared_ptr<Thread> thread_;
};

// Seconds that a rank may take to come at start, before the configuration is agreed on: MIMO_START_TIMEOUT in
// the environment, else 300.
double start_timeout();

// Ends this process with status 1 unless it is destroyed in time, in the words of `why`.
class Deadline {
 public:
  Deadline(double seconds, std::function<std::string()> why);
  ~Deadline();
  Deadline(const Deadline&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mimo
