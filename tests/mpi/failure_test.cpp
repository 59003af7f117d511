// Nothing hangs: jobs of three ranks in which something goes wrong, watched from outside.
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include "main.h"
#include "parallel/agreement.h"
#include "parallel/heartbeat.h"
#include "parallel/watchdog.h"

const char* const kRanks = "1";

namespace mimo {
namespace {

struct Outcome {
  int status;
  double seconds;
  std::string output;
  int count(const std::string& what) const {
    int n = 0;
    for (size_t at = output.find(what); at != std::string::npos; at = output.find(what, at + 1)) ++n;
    return n;
  }
};

// `more`: of mpirun's command line, as in ": -n 1 sleep 9"; `variables`: of the ranks' environment.
Outcome job(const std::string& role, int ranks = 3, const std::string& more = "",
            const std::string& variables = "") {
  char self[4096] = "";
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  MIMO_CHECK(length > 0, "no /proc/self/exe");
  // An environment of its own: this program is itself a rank of a job.
  const std::string command =
      "env -i PATH=\"$PATH\" HOME=/tmp OMPI_ALLOW_RUN_AS_ROOT=1 "
      "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " +
      variables + " timeout -s KILL 30 mpirun --oversubscribe -n " + std::to_string(ranks) + " " +
      std::string(self, length) + " --role " + role + " " + more + " 2>&1";
  const auto start = std::chrono::steady_clock::now();
  FILE* pipe = popen(command.c_str(), "r");
  MIMO_CHECK(pipe, "popen");
  Outcome out{};
  char buffer[4096];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) out.output.append(buffer, n);
  const int status = pclose(pipe);
  out.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return out;
}

#define ROLE(name)                                 \
  int name(World&);                                \
  const bool name##_added = add_role(#name, name); \
  int name([[maybe_unused]] World& world)

ROLE(finishes) {
  world.world().barrier();
  return agree(world.world(), std::string()) ? 0 : 2;
}

TEST(Failure, NoneIsStatusZero) {
  const Outcome o = job("finishes");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.output, "");
}

ROLE(disagrees) {
  const int me = world.world().rank();
  const bool agreed = agree(world.world(), [&] {
    if (me > 0)
      throw ConfigError("train.steps", "expected 1 or more, found " + std::to_string(-me),
                        "give a positive number");
  });
  return agreed ? 0 : 2;
}

TEST(Failure, ConfigurationErrorsAreAgreedOnAndPrintedOnce) {
  const Outcome o = job("disagrees");
  EXPECT_EQ(o.status, 2) << o.output;
  EXPECT_LT(o.seconds, 5);
  EXPECT_EQ(o.count("error: [train.steps] expected 1 or more, found -1. hint: give a positive number\n"), 1)
      << o.output;
  EXPECT_EQ(o.count("error: "), 1) << o.output;
}

TEST(Failure, ConfigurationErrorOfASingleRank) {
  const Outcome o = job("disagrees", 2);
  EXPECT_EQ(o.status, 2) << o.output;
  EXPECT_EQ(o.count("error: "), 1) << o.output;
}

ROLE(throws) {
  if (world.world().rank() == 1) throw std::runtime_error("disk full");
  world.world().barrier();
  return 0;
}

TEST(Failure, ARankThatThrowsEndsTheJob) {
  const Outcome o = job("throws");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_LT(o.seconds, 10);
  EXPECT_EQ(o.count("error: rank 1: disk full\n"), 1) << o.output;
  EXPECT_LT(o.output.find("error: rank 1"), o.output.find("MPI_ABORT")) << "our message comes first";
}

ROLE(dies) {
  if (world.world().rank() == 1) std::raise(SIGKILL);
  float x = 1;
  world.world().all_reduce({&x, 1, DType::f32}, ReduceOp::sum, current_stream()).wait();
  return 0;
}

TEST(Failure, AKilledRankEndsTheJob) {
  const Outcome o = job("dies");
  EXPECT_NE(o.status, 0) << o.output;
  EXPECT_LT(o.seconds, 10);
}

ROLE(stops) {
  Watchdog watchdog(world.world(), 1,
                    [](const Action& a) { return "forward of stage " + std::to_string(a.stage); });
  watchdog.begin("a checkpoint");
  world.world().barrier();
  watchdog.end();
  if (world.world().rank() == 1) std::raise(SIGSTOP);
  Action action;
  action.stage = 7;
  watchdog.begin(action);
  world.world().barrier();
  watchdog.end(action);
  return 0;
}

TEST(Failure, AStoppedRankIsFoundByTheOthersWatchdogs) {
  const Outcome o = job("stops");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_LT(o.seconds, 11);
  EXPECT_EQ(o.count("error: rank 0: no progress for 1"), 1) << o.output;
  EXPECT_EQ(o.count("s (run.hang_timeout) in forward of stage 7: rank 1 does not answer (stopped"), 1)
      << o.output;
  EXPECT_EQ(o.count("error: "), 1) << "one message, not one of every rank that waits\n" << o.output;
}

// What a rank said last, before it was stopped, was of something with another, long limit.
ROLE(stops_before_it_says_so) {
  Communicator& comm = world.world();
  Watchdog start(comm, 60, nullptr, "the start's limit");
  start.begin("the start");
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  comm.barrier();
  Watchdog watchdog(comm, 1);  // its making lets every rank say what it has in hand
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  start.end();
  watchdog.begin("a step");
  if (comm.rank() == 2) std::raise(SIGSTOP);
  comm.barrier();
  return 0;
}

TEST(Failure, TheLimitOfAStoppedRanksLastWordsIsPast) {
  const Outcome o = job("stops_before_it_says_so");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_LT(o.seconds, 11);
  EXPECT_EQ(o.count("s (run.hang_timeout) in a step: rank 2 does not answer (stopped"), 1) << o.output;
}

ROLE(first_stops) {
  Watchdog watchdog(world.world(), 1);
  watchdog.begin("a sum");
  world.world().barrier();
  if (world.world().rank() == 0) std::raise(SIGSTOP);
  world.world().barrier();
  return 0;
}

TEST(Failure, AStoppedRankZeroIsFoundByRankOne) {
  const Outcome o = job("first_stops");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_LT(o.seconds, 11);
  EXPECT_EQ(o.count("error: rank 1: no progress for 1"), 1) << o.output;
  EXPECT_EQ(o.count("in a sum: rank 0 does not answer"), 1) << o.output;
  EXPECT_EQ(o.count("error: "), 1) << o.output;
}

// One rank is busy for three times the limit while the others wait; `progress` says whether it gets on.
void keep_waiting(World& world, bool progress) {
  Watchdog watchdog(world.world(), 0.5);
  watchdog.begin("a checkpoint");
  if (world.world().rank() == 1)
    for (int i = 0; i < 15; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      if (progress) advance();
    }
  world.world().barrier();
  watchdog.end();
}

ROLE(gets_on) {
  keep_waiting(world, true);
  return 0;
}

TEST(Failure, WhatGetsOnMayTakeLongOnTheRanksThatWaitToo) {
  const Outcome o = job("gets_on");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.output, "");
}

// A library writes for long in one call.
ROLE(writes) {
  Watchdog watchdog(world.world(), 0.5);
  watchdog.begin("a checkpoint");
  if (world.world().rank() == 1) {
    FILE* file = std::tmpfile();
    for (int i = 0; i < 15; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      std::fputs("a piece", file);
      std::fflush(file);
    }
    std::fclose(file);
  }
  world.world().barrier();
  watchdog.end();
  return 0;
}

TEST(Failure, WhatWritesGetsOn) {
  const Outcome o = job("writes");
  EXPECT_EQ(o.status, 0) << o.output;
}

ROLE(gets_nowhere) {
  keep_waiting(world, false);
  return 0;
}

TEST(Failure, ARankThatGetsNowhereIsNamed) {
  const Outcome o = job("gets_nowhere");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_EQ(o.count("(run.hang_timeout) in a checkpoint: rank 1 in a checkpoint"), 1) << o.output;
  EXPECT_EQ(o.count("error: "), 1) << o.output;
}

ROLE(waits_in_a_ring) {
  Watchdog watchdog(world.world(), 0.5);
  watchdog.begin("a transfer");
  const int me = world.world().rank(), n = world.world().size();
  const P2P message{false, (me + 1) % n, Tensor::zeros({4}, DType::f32)};
  world.world().exchange(std::span(&message, 1), current_stream()).wait();
  return 0;
}

TEST(Failure, ADeadlockIsCalledOne) {
  const Outcome o = job("waits_in_a_ring");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_EQ(o.count("in a transfer: every rank waits for another: rank 0 in a transfer; rank 1 in a"), 1)
      << o.output;
  EXPECT_EQ(o.count("error: "), 1) << o.output;
}

// All ranks are stopped for two seconds, as by a scheduler, while one is busy and the others wait for it.
ROLE(stands_still) {
  Communicator& comm = world.world();
  const std::vector<int64_t> one_each(comm.size(), 1);
  std::vector<int64_t> pids(comm.size());
  int64_t mine = getpid();
  comm.all_gather({&mine, 1, DType::i64}, {pids.data(), comm.size(), DType::i64}, one_each, current_stream())
      .wait();
  Watchdog watchdog(comm, 1);
  watchdog.begin("a step");
  if (comm.rank() == 0) {
    std::string list;
    for (int64_t pid : pids) list += " " + std::to_string(pid);
    const std::string command =
        "(sleep 0.2; kill -STOP" + list + "; sleep 2; kill -CONT" + list + ") >/dev/null 2>&1 &";
    if (std::system(command.c_str()) != 0) throw std::runtime_error("no shell");
  }
  if (comm.rank() == 1)
    for (int i = 0; i < 6; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  comm.barrier();
  watchdog.end();
  return 0;
}

TEST(Failure, TimeForWhichAJobStoodStillDoesNotCount) {
  const Outcome o = job("stands_still");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.output, "");
  EXPECT_GT(o.seconds, 2) << "it was stopped";
}

TEST(Failure, ARankThatNeverStartsMpiEndsTheJob) {
  const Outcome o = job("finishes", 2, ": -n 1 sleep 25", "MIMO_START_TIMEOUT=1");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_LT(o.seconds, 10);
  EXPECT_EQ(o.count("error: MPI did not start within 1 s (MIMO_START_TIMEOUT): not every rank has come: rank "
                    "2 runs sleep (pid "),
            1)
      << o.output;
  EXPECT_EQ(o.count("error: "), 1) << o.output;
}

TEST(Failure, ARankThatLeavesBeforeMpiEndsTheJob) {
  const Outcome o = job("finishes", 2, ": -n 1 true", "MIMO_START_TIMEOUT=1");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_LT(o.seconds, 10);
  EXPECT_EQ(o.count("not every rank has come: rank 2 has ended"), 1) << o.output;
  EXPECT_EQ(o.count("error: "), 1) << o.output;
}

// The checks at start of one rank take longer than the others may wait, but get on: a large checkpoint, say.
ROLE(checks_slowly) {
  setenv("MIMO_START_TIMEOUT", "0.5", 1);  // not that of MPI's own start
  return agree(world.world(),
               [&] {
                 for (int i = 0; world.world().rank() == 1 && i < 15; ++i) {
                   std::this_thread::sleep_for(std::chrono::milliseconds(100));
                   advance();
                 }
               })
             ? 0
             : 2;
}

TEST(Failure, ChecksAtStartMayTakeLong) {
  const Outcome o = job("checks_slowly");
  EXPECT_EQ(o.status, 0) << o.output;
}

// A world one of whose communicators reports a failure.
struct FailingWorld : World {
  World& host;
  std::atomic<bool> failed = false;
  explicit FailingWorld(World& w) : host(w) {}
  Communicator& world() override { return host.world(); }
  std::shared_ptr<Communicator> create(const Ranks& r, const Limits& l) override { return host.create(r, l); }
  int node_rank() const override { return host.node_rank(); }
  int node_size() const override { return host.node_size(); }
  std::string failure() override { return failed ? "NCCL: a network error" : ""; }
};

ROLE(fails_behind_the_calls) {
  FailingWorld failing(world);
  Watchdog watchdog(failing, 60);
  watchdog.begin("a sum of gradients");
  std::this_thread::sleep_for(std::chrono::milliseconds(1200));  // a look at what has not failed
  failing.failed = world.world().rank() == 1;
  world.world().barrier();
  if (world.world().rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(20));
  world.world().barrier();
  return 0;
}

TEST(Failure, WhatFailsBehindTheCallsEndsTheJob) {
  const Outcome o = job("fails_behind_the_calls");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_LT(o.seconds, 10);
  EXPECT_EQ(o.count("error: rank 1: communication failed in a sum of gradients: NCCL: a network error\n"), 1)
      << o.output;
  EXPECT_EQ(o.count("error: "), 1) << o.output;
}

ROLE(is_slow) {
  Watchdog watchdog(world.world(), 0.4);
  for (int i = 0; i < 5; ++i) {  // each shorter than the limit, all together longer
    watchdog.begin("part " + std::to_string(i));
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  watchdog.end();
  std::this_thread::sleep_for(std::chrono::milliseconds(600));  // nothing in hand
  return 0;
}

TEST(Failure, AWatchdogLeavesSlowJobsAlone) {
  const Outcome o = job("is_slow", 1);
  EXPECT_EQ(o.status, 0) << o.output;
}

ROLE(sends_too_much) {
  const int me = world.world().rank();
  if (me < 2) {
    const P2P message{me == 0, 1 - me, Tensor::zeros({me == 0 ? 5 : 4}, DType::f32)};
    world.world().exchange(std::span(&message, 1), current_stream()).wait();
  }
  world.world().barrier();
  return 0;
}

TEST(Failure, AMessageOfAnotherSizeEndsTheJob) {
  const Outcome o = job("sends_too_much");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_EQ(o.count("error: rank 1: message from rank 0 of the group: expected 4 elements of f32"), 1)
      << o.output;
}

ROLE(unwinds) {
  if (world.world().rank() == 1) {
    const P2P message{false, 0, Tensor::zeros({4}, DType::f32)};
    const Work never = world.world().exchange(std::span(&message, 1), current_stream());
    throw std::runtime_error("while a message is awaited");
  }
  world.world().barrier();
  return 0;
}

TEST(Failure, UnwindingDoesNotWaitForMessages) {
  const Outcome o = job("unwinds");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_LT(o.seconds, 10);
  EXPECT_EQ(o.count("error: rank 1: while a message is awaited\n"), 1) << o.output;
}

}  // namespace
}  // namespace mimo
