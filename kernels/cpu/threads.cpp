#include "kernels/cpu/threads.h"

#include <pthread.h>
#include <sched.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

namespace mimo {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

// A thread looks for its next work for about twice as long as it would take to wake it.
constexpr microseconds kLook(100);
// A thread that its core did not run for a quarter of such a time shares it with another program.
constexpr milliseconds kWatch(5);
// How long regions then stay on the calling thread: from the first to the most, doubled each time in a row.
constexpr milliseconds kAlone(10), kLongestAlone(320);

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Calls done() until it is true, or for kLook: then false.
template <class F>
bool look(F&& done) {
  const auto start = Clock::now();
  do
    for (int i = 0; i < 16; ++i, pause())
      if (done()) return true;
  while (Clock::now() - start < kLook);
  return false;
}

nanoseconds cpu_time_of_thread() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + nanoseconds(t.tv_nsec);
}

// Tells a thread that wants to run all the time whether its core is another program's too.
class Watch {
 public:
  void begin(Clock::time_point now) { since_ = now, used_ = cpu_time_of_thread(); }
  void leave_out(Clock::duration asleep) { since_ += asleep; }
  bool taken(Clock::time_point now) {
    if (now - since_ < kWatch) return false;
    const nanoseconds passed = now - since_, used = used_;
    begin(now);
    return 4 * (passed - (used_ - used)) > passed;
  }

 private:
  Clock::time_point since_{};
  nanoseconds used_{};
};

thread_local bool serial = false;

class Pool {
 public:
  explicit Pool(int threads) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are the program's threads' business
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  ~Pool() {
    state_.fetch_or(kStop);
    state_.notify_all();
    for (std::thread& t : workers_) t.join();
  }

  void run(Pieces& pieces, pool::Body body, void* context) {
    const Serial nested;
    if (Clock::now().time_since_epoch() < alone_until_.load(std::memory_order_relaxed))
      return body(context, 0, pieces);
    pieces_ = &pieces, body_ = body, context_ = context;
    state_.store((state_.load(std::memory_order_relaxed) + kRegion) | kOpen);
    state_.notify_all();
    call(0);
    uint32_t now = state_.fetch_and(~kOpen) & ~kOpen;
    const auto ended = [&] { return !((now = state_.load()) & kInside); };
    if (!look(ended))
      while (!ended()) state_.wait(now);
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  // state_: workers inside the region, the end of all, whether the region is open, its number.
  static constexpr uint32_t kInside = 0x7ff, kStop = 0x800, kOpen = 0x1000, kRegion = 0x2000;

  void call(int thread) {
    try {
      body_(context_, thread, *pieces_);
    } catch (...) {
      pieces_->stop();
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  void work(int thread) {
    serial = true;
    Watch watch;
    watch.begin(Clock::now());
    uint32_t now = 0, seen = 0;
    const auto changed = [&] { return (now = state_.load()) / kRegion != seen || (now & kStop); };
    while (true) {
      if (!look(changed)) {
        const auto begin = Clock::now();
        while (!changed()) state_.wait(now);
        watch.leave_out(Clock::now() - begin);
      }
      if (now & kStop) return;
      seen = now / kRegion;
      bool inside = false;
      while ((now & kOpen) && !(inside = state_.compare_exchange_weak(now, now + 1))) {
      }
      if (inside) {
        call(thread);
        now = state_.fetch_sub(1) - 1;
        if (!(now & (kOpen | kInside))) state_.notify_all();  // the caller may sleep
      }
      if (const auto t = Clock::now(); watch.taken(t)) stay_alone(t);
    }
  }

  void stay_alone(Clock::time_point now) {
    const std::lock_guard lock(alone_mutex_);
    const auto until = alone_until_.load(std::memory_order_relaxed);
    if (now.time_since_epoch() < until) return;
    const bool again = now.time_since_epoch() < until + 2 * kLongestAlone;
    alone_ = again ? std::min(2 * alone_, kLongestAlone) : kAlone;
    alone_until_ = now.time_since_epoch() + alone_;
  }

  alignas(64) std::atomic<uint32_t> state_{0};
  alignas(64) Pieces* pieces_ = nullptr;
  pool::Body body_ = nullptr;
  void* context_ = nullptr;
  std::atomic<Clock::duration> alone_until_{};
  milliseconds alone_{};
  std::mutex alone_mutex_, error_mutex_;
  std::exception_ptr error_;
  std::vector<std::thread> workers_;
};

std::atomic<int> wanted{0};
std::mutex in_use;
Pool* the_pool = nullptr;  // never destroyed: its threads run until the process has ended

// A child has none of its parent's threads.
void forget_in_child() {
  new (&in_use) std::mutex;
  the_pool = nullptr;
}

}  // namespace

int default_thread_count() {
  if (const char* given = std::getenv("OMP_NUM_THREADS"))  // of a list, the first
    if (const int n = std::atoi(given); n > 0) return std::min(n, 1024);
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int thread_count() {
  if (const int n = wanted.load(std::memory_order_relaxed)) return n;
  wanted = default_thread_count();
  return wanted;
}

void set_thread_count(int n) {
  const std::lock_guard lock(in_use);
  if (n != wanted) delete std::exchange(the_pool, nullptr);
  wanted = n;
}

Serial::Serial() : before_(std::exchange(serial, true)) {}
Serial::~Serial() { serial = before_; }

bool pool::is_serial() { return serial; }

void pool::run(Pieces& pieces, Body body, void* context) {
  const std::unique_lock lock(in_use, std::try_to_lock);
  if (!lock) return body(context, 0, pieces);  // another thread's region has them
  if (!the_pool) {
    [[maybe_unused]] static const int once = pthread_atfork(nullptr, nullptr, forget_in_child);
    the_pool = new Pool(thread_count());
  }
  the_pool->run(pieces, body, context);
}

}  // namespace mimo
