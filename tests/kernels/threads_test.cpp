// The pool of threads: every index once, whatever else runs, throws, forks or ends.
#include "kernels/cpu/threads.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

namespace mimo {
namespace {

constexpr int64_t kLarge = 1 << 30;  // bytes: threads pay

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Threads : public testing::Test {
 protected:
  ~Threads() override { set_thread_count(before_); }
  const int before_ = thread_count();
};

TEST_F(Threads, EveryIndexOnceForAnyCount) {
  for (const int threads : {1, 2, 3, 8}) {
    set_thread_count(threads);
    EXPECT_EQ(thread_count(), threads);
    for (const int64_t n : {0, 1, 2, 3, 100, 4097})
      for (const int64_t bytes : {int64_t{0}, kThreadBytes, kLarge})
        for (const bool in_order : {false, true}) {
          std::vector<int> seen(n);
          const auto each = [&](int, auto&& loop) { loop([&](int64_t i) { ++seen[i]; }); };
          parallel_tasks(n, bytes, each, in_order);
          EXPECT_EQ(seen, std::vector<int>(n, 1)) << threads << " threads, " << bytes << " bytes";
        }
  }
}

TEST_F(Threads, RegionsFollowEachOther) {  // with less work than it takes to come
  set_thread_count(3);
  int64_t sum = 0;
  std::vector<int64_t> part(4);
  for (int64_t i = 0; i < 20000; ++i) {
    parallel_for(4, kLarge, [&](int64_t k) { part[k] = i + k; });
    sum += std::accumulate(part.begin(), part.end(), int64_t{0});
  }
  EXPECT_EQ(sum, 4 * (20000 * int64_t{19999} / 2) + 6 * 20000);
}

// A thread keeps its number: what it has set up is its own. Its indices rise from its own share's first to
// the end, then from the first thread's on; or, in order, from the first that no other has.
TEST_F(Threads, EachThreadBeginsWithItsShareUnderItsNumber) {
  constexpr int kThreads = 3;
  constexpr int64_t kShare = 1000;
  set_thread_count(kThreads);
  for (const bool in_order : {false, true}) {
    std::map<int, int64_t> first;
    // Until all have come to one region: where another program is, threads stay away for a while.
    for (const double end = now() + 20; first.size() < kThreads && now() < end;) {
      first.clear();
      std::mutex mutex;
      std::atomic<int> come{0};
      const auto each = [&](int thread, auto&& loop) {
        int64_t last = -1, falls = 0;
        loop([&](int64_t i) {
          if (last < 0) {
            {
              const std::lock_guard lock(mutex);
              EXPECT_TRUE(first.emplace(thread, i).second);
            }
            ++come;
            for (const double enough = now() + 0.2; come < kThreads && now() < enough;)
              std::this_thread::yield();
          }
          if (i < last) ++falls;
          last = i;
        });
        EXPECT_LE(falls, in_order ? 0 : 1);
      };
      parallel_tasks(kThreads * kShare, kLarge, each, in_order);
    }
    ASSERT_EQ(first.size(), size_t{kThreads}) << "not all came in 20 s";
    std::vector<int64_t> begun;
    for (const auto& [thread, i] : first) begun.push_back(i);
    if (in_order) std::sort(begun.begin(), begun.end());
    EXPECT_EQ(begun,
              in_order ? (std::vector<int64_t>{0, 1, 2}) : (std::vector<int64_t>{0, kShare, 2 * kShare}));
  }
}

// The others may be anywhere but here: one that holds an index until all else is done holds no other.
TEST_F(Threads, OneThatIsLateHoldsUpNoOther) {
  set_thread_count(2);
  constexpr int64_t n = 1000;
  std::atomic<int64_t> done{0};
  std::atomic<bool> held{false};
  const auto main_thread = std::this_thread::get_id();
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!held && std::chrono::steady_clock::now() < until) {
    done = 0;
    parallel_for(n, kLarge, [&](int64_t) {
      if (std::this_thread::get_id() != main_thread && !held.exchange(true))
        while (done + (n / 4 + 1) < n && std::chrono::steady_clock::now() < until) std::this_thread::yield();
      ++done;
    });
    EXPECT_EQ(done, n);
  }
  EXPECT_TRUE(held) << "no other thread came";
  EXPECT_LT(std::chrono::steady_clock::now(), until) << "indices were left to a thread that was late";
}

TEST_F(Threads, SmallWorkStaysHere) {
  set_thread_count(2);
  const auto here = std::this_thread::get_id();
  for (int i = 0; i < 1000; ++i)
    parallel_for(100, kThreadBytes - 1, [&](int64_t) { EXPECT_EQ(std::this_thread::get_id(), here); });
}

TEST_F(Threads, WithinARegionThereIsOneThread) {
  set_thread_count(2);
  std::vector<int> seen(400);
  parallel_for(20, kLarge, [&](int64_t i) {
    const auto here = std::this_thread::get_id();
    parallel_for(20, kLarge, [&](int64_t k) {
      EXPECT_EQ(std::this_thread::get_id(), here);
      ++seen[i * 20 + k];
    });
  });
  EXPECT_EQ(seen, std::vector<int>(400, 1));
  const auto here = std::this_thread::get_id();
  const Serial serial;
  parallel_for(1000, kLarge, [&](int64_t) { EXPECT_EQ(std::this_thread::get_id(), here); });
}

TEST_F(Threads, CarriesWhatABodyThrows) {
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    for (int64_t bad = 0; bad < 200; ++bad) {
      try {
        parallel_for(200, kLarge, [&](int64_t i) {
          if (i == bad) throw std::runtime_error("index " + std::to_string(i));
        });
        ADD_FAILURE() << "nothing was thrown";
      } catch (const std::runtime_error& e) {
        EXPECT_EQ(e.what(), "index " + std::to_string(bad));
      }
    }
    std::atomic<int> calls{0};
    parallel_for(100, kLarge, [&](int64_t) { ++calls; });
    EXPECT_EQ(calls, 100);
  }
}

TEST_F(Threads, SeveralCallersAtOnce) {
  set_thread_count(3);
  std::vector<std::thread> callers;
  std::vector<int> wrong(4);
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&wrong, c] {
      for (int r = 0; r < 300; ++r) {
        std::vector<int> seen(50);
        parallel_for(50, kLarge, [&](int64_t i) { ++seen[i]; });
        wrong[c] += seen != std::vector<int>(50, 1);
      }
    });
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

// A child has its own threads, and ends while they wait for work.
TEST_F(Threads, AChildOfForkComputesAndEnds) {
  set_thread_count(3);
  parallel_for(100, kLarge, [](int64_t) {});
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    std::atomic<int> calls{0};
    for (int i = 0; i < 100; ++i) parallel_for(100, kLarge, [&](int64_t) { ++calls; });
    std::exit(calls == 10000 ? 7 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
  std::atomic<int> calls{0};
  parallel_for(100, kLarge, [&](int64_t) { ++calls; });
  EXPECT_EQ(calls, 100);
}

TEST_F(Threads, RunWhereTheCallerMay) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  int core = 0;
  while (!CPU_ISSET(core, &before)) ++core;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  set_thread_count(before_ == 4 ? 5 : 4);  // new ones
  parallel_for(1000, kLarge, [&](int64_t) {
    cpu_set_t mine;
    EXPECT_EQ(sched_getaffinity(0, sizeof mine, &mine), 0);
    EXPECT_TRUE(CPU_EQUAL(&mine, &one));
  });
  set_thread_count(1);
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST_F(Threads, SpansOfManyTensors) {
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    const std::vector<int64_t> sizes = {0, 5, 1, 0, 0, 130, 64, 65, 0};
    std::vector<std::vector<int>> seen;
    for (const int64_t n : sizes) seen.emplace_back(n);
    std::vector<int> numbers(1 + 1 + 3 + 1 + 2);
    for_each_span_of(
        static_cast<int>(sizes.size()), [&](int i) { return sizes[i]; }, 64, kLarge,
        [&](int tensor, int64_t begin, int64_t end, int64_t number) {
          EXPECT_LE(end - begin, 64);
          for (int64_t i = begin; i < end; ++i) ++seen[tensor][i];
          ++numbers[number];
        });
    for (size_t i = 0; i < sizes.size(); ++i) EXPECT_EQ(seen[i], std::vector<int>(sizes[i], 1));
    EXPECT_EQ(numbers, std::vector<int>(numbers.size(), 1));
  }
}

}  // namespace
}  // namespace mimo
