#include "parallel/watchdog.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

namespace mimo {
namespace {

using Clock = std::chrono::steady_clock;

std::string text_of(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g s", seconds);
  return text;
}

// Bytes that this process has written to files, as the kernel counts them: what a library writes in one call
// (HDF5 closing a file) gets on too. What sockets send is not counted. 0 where the kernel does not say.
int64_t bytes_written() {
  std::ifstream io("/proc/self/io");
  std::string name;
  for (int64_t count = 0; io >> name >> count;)
    if (name == "wchar:") return count;
  return 0;
}

}  // namespace

// The process's one thread for all its watchdogs.
class Watchdog::Thread {
 public:
  explicit Thread(Communicator& world) : rank_(world.rank()), size_(world.size()), heart_(world) {
    if (!heart_.connected() && size_ > 1 && rank_ == 0)
      std::fprintf(stderr,
                   "note: no TCP connections between the ranks: what one of them does for longer than "
                   "run.hang_timeout while others wait ends the job\n");
    progress_.assign(static_cast<size_t>(size_), 0);
    thread_ = std::thread([this] { run(); });
  }
  ~Thread() {
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  static std::shared_ptr<Thread> shared(Communicator& world) {
    static std::mutex mutex;
    static std::weak_ptr<Thread> current;
    std::lock_guard lock(mutex);
    std::shared_ptr<Thread> thread = current.lock();
    if (!thread) current = thread = std::make_shared<Thread>(world);
    return thread;
  }

  void add(Watchdog& dog) {
    std::lock_guard lock(mutex_);
    dogs_.push_back(&dog);
    changed_.notify_all();
  }
  void remove(Watchdog& dog) {
    std::lock_guard lock(mutex_);
    std::erase(dogs_, &dog);
  }

 private:
  double period() const {
    double least = 8;
    for (const Watchdog* dog : dogs_) least = std::min(least, dog->timeout_);
    return std::clamp(least / 8, 0.01, 1.0);
  }

  void run() {
    std::unique_lock lock(mutex_);
    for (auto last = Clock::now(); !stopped_;) {
      changed_.wait_for(lock, std::chrono::duration<double>(period()));
      const auto now = Clock::now();
      const double passed = std::chrono::duration<double>(now - last).count();
      last = now;
      if (!stopped_) tick(std::min(passed, 2 * period()));  // more is time for which the process stood still
    }
  }

  void tick(double seconds) {
    Watchdog* dog = nullptr;  // the innermost with something in hand
    std::optional<std::string> what;
    for (Watchdog* d : dogs_) {
      const std::optional<std::string> in_hand = d->in_hand();
      if (in_hand) dog = d, what = in_hand;
      const std::string failure = d->failure_();
      if (!failure.empty())
        d->world_.abort("communication failed" + (in_hand ? " in " + *in_hand : "") + ": " + failure);
    }
    Beat mine;
    mine.progress = progress() + bytes_written();
    mine.timeout = dog ? dog->timeout_ : 0;
    mine.waits = WaitsForOthers::any();
    if (what) what->copy(mine.what, sizeof mine.what - 1);
    heart_.exchange(mine, seconds);
    peers_ = heart_.peers();
    if (rank_ == 0 || !heart_.connected())
      judge(mine, dog, seconds);
    else
      listen(mine, dog, seconds);
  }

  // Rank 0 of all ranks; one that has no connection of itself.
  void judge(const Beat& mine, Watchdog* dog, double seconds) {
    double timeout = mine.timeout;
    bool got_on = get_on(rank_, mine);
    for (const Heartbeat::Peer& p : peers_) {
      if (p.left) continue;
      got_on |= get_on(p.rank, p.last);
      // Not heard of late, its last words may be of something long past, with another limit.
      if (mine.timeout == 0 || p.silent <= mine.timeout / 2) timeout = std::max(timeout, p.last.timeout);
    }
    still_ = got_on || timeout == 0 ? 0 : still_ + seconds;
    if (timeout == 0 || still_ < timeout || dogs_.empty()) return;
    end_job(dog ? *dog : *dogs_.back(), mine, cause(mine, timeout));
  }

  // The others of rank 0 alone; rank 1 first, and one message is enough.
  void listen(const Beat& mine, Watchdog* dog, double seconds) {
    const Heartbeat::Peer& hub = peers_.front();
    still_ = get_on(rank_, mine) || !dog ? 0 : still_ + seconds;
    const double timeout = mine.timeout + (rank_ == 1 && !hub.left ? 2 * period() : 5);
    if (!dog || still_ < mine.timeout || hub.silent < timeout) return;
    end_job(*dog, mine, hub.left ? "rank 0 has left the job" : silent(hub));
  }

  void end_job(Watchdog& dog, const Beat& mine, const std::string& cause) {
    dog.world_.abort("no progress for " + text_of(still_) + " (" + dog.limit_ + ")" +
                     (mine.timeout > 0 ? " in " + std::string(mine.what) : "") + ": " + cause);
  }

  bool get_on(int rank, const Beat& beat) {
    return std::exchange(progress_[static_cast<size_t>(rank)], beat.progress) != beat.progress;
  }

  static std::string does(int rank, const Beat& beat) {
    return "rank " + std::to_string(rank) + (beat.timeout > 0 ? " in " + std::string(beat.what) : "");
  }
  static std::string silent(const Heartbeat::Peer& p) {
    return "rank " + std::to_string(p.rank) + " does not answer (stopped, or its machine is gone)" +
           (p.last.timeout > 0 ? ", last in " + std::string(p.last.what) : "");
  }

  // Who is to blame: whoever has left, does not answer, or does not wait for others.
  std::string cause(const Beat& mine, double timeout) const {
    std::vector<std::string> left, mute, busy, waiting;
    (mine.waits ? waiting : busy).push_back(does(rank_, mine));
    for (const Heartbeat::Peer& p : peers_) {
      if (p.left)
        left.push_back("rank " + std::to_string(p.rank) + " has left the job");
      else if (p.silent > timeout / 2)
        mute.push_back(silent(p));
      else
        (p.last.waits ? waiting : busy).push_back(does(p.rank, p.last));
    }
    const auto list = [](const std::vector<std::string>& all) {
      constexpr size_t kMost = 4;
      std::string text;
      for (size_t i = 0; i < std::min(kMost, all.size()); ++i) text += (i > 0 ? "; " : "") + all[i];
      return text + (all.size() > kMost ? " and " + std::to_string(all.size() - kMost) + " more" : "");
    };
    for (const auto* culprits : {&left, &mute, &busy})
      if (!culprits->empty()) return list(*culprits);
    if (!heart_.connected() && size_ > 1)
      return list(waiting) + ": another rank has stopped or is far behind";
    return "every rank waits for another: " + list(waiting);
  }

  const int rank_, size_;
  Heartbeat heart_;
  std::vector<Heartbeat::Peer> peers_;
  std::vector<int64_t> progress_;  // last heard, by rank
  double still_ = 0;               // seconds without progress
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
  std::vector<Watchdog*> dogs_;  // in order of their making
  std::thread thread_;
};

Watchdog::Watchdog(Communicator& world, double timeout_seconds,
                   std::function<std::string(const Action&)> describe, std::string limit)
    : Watchdog(
          world, timeout_seconds, std::move(describe), [&world] { return world.failure(); },
          std::move(limit)) {}

Watchdog::Watchdog(World& world, double timeout_seconds, std::function<std::string(const Action&)> describe)
    : Watchdog(
          world.world(), timeout_seconds, std::move(describe), [&world] { return world.failure(); },
          "run.hang_timeout") {}

Watchdog::Watchdog(Communicator& world, double timeout_seconds,
                   std::function<std::string(const Action&)> describe, std::function<std::string()> failure,
                   std::string limit)
    : world_(world),
      timeout_(timeout_seconds),
      describe_(std::move(describe)),
      failure_(std::move(failure)),
      limit_(std::move(limit)),
      thread_(Thread::shared(world)) {
  thread_->add(*this);
}

Watchdog::~Watchdog() { thread_->remove(*this); }

void Watchdog::begin(const Action& action) {
  std::lock_guard lock(mutex_);
  active_ = true;
  action_ = action;
  advance();
}

void Watchdog::begin(std::string what) {
  std::lock_guard lock(mutex_);
  active_ = true;
  action_.reset();
  what_ = std::move(what);
  advance();
}

void Watchdog::end() {
  std::lock_guard lock(mutex_);
  active_ = false;
  advance();
}

std::optional<std::string> Watchdog::in_hand() {
  std::unique_lock lock(mutex_);
  if (!active_) return {};
  if (!action_) return what_;
  const Action action = *action_;
  lock.unlock();
  return describe_ ? describe_(action) : "an action of the plan";
}

double start_timeout() {
  const char* text = std::getenv("MIMO_START_TIMEOUT");
  const double seconds = text ? std::atof(text) : 0;
  return seconds > 0 ? seconds : 300;
}

struct Deadline::State {
  std::mutex mutex;
  std::condition_variable changed;
  bool met = false;
  std::thread thread;
};

Deadline::Deadline(double seconds, std::function<std::string()> why) : state_(std::make_unique<State>()) {
  state_->thread = std::thread([this, seconds, why = std::move(why)] {
    std::unique_lock lock(state_->mutex);
    const double period = std::clamp(seconds / 8, 0.01, 1.0);
    double waited = 0;
    for (auto last = Clock::now(); waited < seconds;) {
      state_->changed.wait_for(lock, std::chrono::duration<double>(period), [&] { return state_->met; });
      if (state_->met) return;
      const auto now = Clock::now();
      waited += std::min(std::chrono::duration<double>(now - last).count(), 2 * period);
      last = now;
    }
    const std::string text = why();
    if (!text.empty()) std::fprintf(stderr, "error: %s\n", text.c_str());
    std::_Exit(1);
  });
}

Deadline::~Deadline() {
  {
    std::lock_guard lock(state_->mutex);
    state_->met = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
}

}  // namespace mimo
