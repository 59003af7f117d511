#include "tests/simt/simt.h"

#include <sys/mman.h>

#include <boost/context/detail/fcontext.hpp>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/cpu/threads.h"
#include "tests/simt/device_memory.h"
#include "tests/simt/noise.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SIMT_ASAN 1
#else
#define SIMT_ASAN 0
#endif

namespace simt {
namespace {

using boost::context::detail::fcontext_t;
using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

constexpr size_t kStack = 256 * 1024;
constexpr int kFence = 256;  // bytes behind shared memory that must stay as they are
Order g_order = Order::fair_up;
Noise g_noise = Noise::none;

struct Copy {
  void* shared;
  const void* global;
  int bytes;
  bool valid;
};

struct Fiber {
  enum State { ready, in_warp, in_block, left } state = ready;
  fcontext_t context = nullptr;
  char* stack = nullptr;
  uint3 index{};
  int id = 0;
  const char* what = "";
  std::source_location at;
  void* argument = nullptr;
  Work work = nullptr;
  std::deque<std::vector<Copy>> groups;  // committed, oldest first
  std::vector<Copy> open;                // issued since the last commit
  void* fake_stack = nullptr;            // ASan's
};

struct Block {
  dim3 grid, size;
  uint3 index{};
  std::string_view name;
  const std::function<void()>* body = nullptr;
  std::vector<Fiber> fibers;
  std::vector<int> in_warp;  // lanes of each warp that wait in a collective
  int in_block = 0, left = 0, votes = 0, result = 0;
  void* shared = nullptr;
  int shared_bytes = 0;
  fcontext_t scheduler = nullptr;
  std::exception_ptr error;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;
  void* scheduler_fake_stack = nullptr;
};

thread_local Block* block = nullptr;
thread_local Fiber* fiber = nullptr;

// Stacks of this thread, kept from launch to launch.
char* stack_of(int i) {
  static thread_local std::vector<char*> stacks;
  while (static_cast<int>(stacks.size()) <= i) {
    void* p =
        mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    stacks.push_back(static_cast<char*>(p));
  }
  return stacks[i];
}

std::string place(const std::source_location& at) {
  return std::string(at.file_name()) + ":" + std::to_string(at.line());
}

std::string coordinates(const uint3& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

[[noreturn]] void fail(const std::string& what) {
  std::string s = std::string(block->name) + " block " + coordinates(block->index);
  if (fiber) s += " thread " + std::to_string(fiber->id);
  throw Error(s + ": " + what);
}

// Control passes to the scheduler, and back here when this fiber is chosen again.
void switch_to_scheduler([[maybe_unused]] bool for_good) {
#if SIMT_ASAN
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber->fake_stack, block->scheduler_stack,
                                 block->scheduler_stack_size);
#endif
  const transfer_t t = jump_fcontext(block->scheduler, nullptr);
  block->scheduler = t.fctx;
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(fiber->fake_stack, &block->scheduler_stack, &block->scheduler_stack_size);
#endif
}

void fiber_main(transfer_t t) {
  block->scheduler = t.fctx;
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &block->scheduler_stack, &block->scheduler_stack_size);
#endif
  try {
    (*block->body)();
    for (const auto& group : fiber->groups)
      if (!group.empty()) fail("left with an asynchronous copy that nobody waited for");
    if (!fiber->open.empty()) fail("left with an asynchronous copy that was not committed");
  } catch (...) {
    if (!block->error) block->error = std::current_exception();
  }
  fiber->state = Fiber::left;
  ++block->left;
  switch_to_scheduler(true);
  std::abort();  // never chosen again
}

void resume(Fiber& f) {
  fiber = &f;
#if SIMT_ASAN
  __sanitizer_start_switch_fiber(&block->scheduler_fake_stack, f.stack, kStack);
#endif
  const transfer_t t = jump_fcontext(f.context, nullptr);
  f.context = t.fctx;
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(block->scheduler_fake_stack, nullptr, nullptr);
#endif
  fiber = nullptr;
}

[[noreturn]] void deadlock() {
  // The first thread that waits, and the first that does something else.
  const Fiber* waits = nullptr;
  for (const Fiber& f : block->fibers)
    if (f.state == Fiber::in_warp || f.state == Fiber::in_block) {
      waits = &f;
      break;
    }
  std::string s =
      "thread " + std::to_string(waits->id) + " waits in " + waits->what + " at " + place(waits->at);
  for (const Fiber& f : block->fibers) {
    if (f.state == waits->state && f.what == waits->what && f.at.line() == waits->at.line()) continue;
    s += f.state == Fiber::left
             ? ", but thread " + std::to_string(f.id) + " has left"
             : ", but thread " + std::to_string(f.id) + " waits in " + f.what + " at " + place(f.at);
    break;
  }
  fail("divergent barrier: " + s);
}

void run_threads() {
  const int n = static_cast<int>(block->fibers.size());
  const bool down = g_order == Order::fair_down || g_order == Order::greedy_down;
  const bool greedy = g_order == Order::greedy_up || g_order == Order::greedy_down;
  const int team = greedy ? kWarp : n;  // threads that run in turn before others may
  while (block->left < n) {
    bool any = false;
    for (int first = 0; first < n; first += team) {
      const int base = down ? n - team - first : first;
      for (bool again = true; again;) {
        again = false;
        for (int i = 0; i < team; ++i) {
          Fiber& f = block->fibers[base + (down ? team - 1 - i : i)];
          if (f.state != Fiber::ready) continue;
          again = any = true;
          resume(f);
          if (block->error) return;
        }
      }
    }
    if (!any) deadlock();
  }
}

struct SharedMemory {
  int bytes;
  unsigned char* data;
  explicit SharedMemory(int n) : bytes(n) {
    void* p = nullptr;
    // With ASan the block ends where shared memory does; without, a fence follows.
    if (posix_memalign(&p, 128, static_cast<size_t>(n) + (SIMT_ASAN ? 0 : kFence) + (n == 0)) != 0)
      throw std::bad_alloc();
    data = static_cast<unsigned char*>(p);
  }
  ~SharedMemory() { std::free(data); }
  SharedMemory(const SharedMemory&) = delete;
  void poison() { std::memset(data, 0xff, static_cast<size_t>(bytes) + (SIMT_ASAN ? 0 : kFence)); }
  bool fence_holds() const {
    if (SIMT_ASAN) return true;
    for (int i = 0; i < kFence; ++i)
      if (data[bytes + i] != 0xff) return false;
    return true;
  }
};

void run_block(Block& b, SharedMemory& shared) {
  shared.poison();
  const int n = static_cast<int>(b.size.x);
  b.fibers.assign(static_cast<size_t>(n), Fiber{});
  b.in_warp.assign(static_cast<size_t>(n / kWarp), 0);
  b.in_block = b.left = b.votes = b.result = 0;
  for (int i = 0; i < n; ++i) {
    Fiber& f = b.fibers[i];
    f.id = i;
    f.index = {static_cast<unsigned>(i), 0, 0};
    f.stack = stack_of(i);
#if SIMT_ASAN
    __asan_unpoison_memory_region(f.stack, kStack);  // of an earlier launch that left it early
#endif
    f.context = make_fcontext(f.stack + kStack, kStack, fiber_main);
  }
  run_threads();
  if (b.error) std::rethrow_exception(b.error);
  if (!shared.fence_holds()) fail("wrote behind its shared memory");
}

}  // namespace

void set_order(Order o) { g_order = o; }
void set_noise(Noise n) { g_noise = n; }
Noise noise() { return g_noise; }

void run(std::string_view name, dim3 grid, int threads, int shared_bytes, const std::function<void()>& body) {
  if (threads <= 0 || threads > 1024 || threads % kWarp != 0)
    throw Error(std::string(name) + ": " + std::to_string(threads) + " threads a block are no whole warps");
  if (grid.y > 65535 || grid.z > 65535)
    throw Error(std::string(name) + ": grid y and z have at most 65535 blocks");
  const DeviceAccess access;
  const int64_t blocks = int64_t{grid.x} * grid.y * grid.z;
  const bool down = g_order == Order::fair_down || g_order == Order::greedy_down;
  std::exception_ptr first;
  std::mutex mutex;
  mimo::parallel_tasks(blocks, blocks * mimo::kThreadBytes, [&](int, auto&& loop) {
    Block b;
    b.grid = grid;
    b.size = dim3(static_cast<unsigned>(threads));
    b.name = name;
    b.body = &body;
    SharedMemory shared(shared_bytes);
    b.shared = shared.data;
    b.shared_bytes = shared_bytes;
    block = &b;
    loop([&](int64_t i) {
      {
        std::lock_guard lock(mutex);
        if (first) return;
      }
      const int64_t at = down ? blocks - 1 - i : i;
      b.index = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                 static_cast<unsigned>(at / grid.x / grid.y)};
      try {
        run_block(b, shared);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
    });
    block = nullptr;
    fiber = nullptr;
  });
  if (first) std::rethrow_exception(first);
}

const uint3& thread_index() { return fiber->index; }
const uint3& block_index() { return block->index; }
const dim3& block_size() { return block->size; }
const dim3& grid_size() { return block->grid; }
int lane() { return fiber->id % kWarp; }

void* shared_memory(int bytes) {
  if (bytes != block->shared_bytes)
    fail("declares " + std::to_string(bytes) + " bytes of shared memory, its launch gave " +
         std::to_string(block->shared_bytes));
  return block->shared;
}

void meet_warp(const char* what, void* argument, Work work, const std::source_location& at) {
  Fiber& f = *fiber;
  const int warp = f.id / kWarp;
  f.what = what;
  f.at = at;
  f.argument = argument;
  f.work = work;
  if (++block->in_warp[warp] < kWarp) {
    f.state = Fiber::in_warp;
    switch_to_scheduler(false);
    return;
  }
  Fiber* lanes = &block->fibers[static_cast<size_t>(warp) * kWarp];
  void* arguments[kWarp];
  for (int i = 0; i < kWarp; ++i) {
    if (lanes[i].work != work || lanes[i].at.line() != at.line())
      fail("divergent barrier: thread " + std::to_string(f.id) + " waits in " + what + " at " + place(at) +
           ", but thread " + std::to_string(lanes[i].id) + " waits in " + lanes[i].what + " at " +
           place(lanes[i].at));
    arguments[i] = lanes[i].argument;
  }
  if (work) work(arguments);
  block->in_warp[warp] = 0;
  for (int i = 0; i < kWarp; ++i) lanes[i].state = Fiber::ready;
}

int meet_block(int vote, const std::source_location& at) {
  Fiber& f = *fiber;
  f.what = "__syncthreads";
  f.at = at;
  block->votes += vote;
  if (++block->in_block < static_cast<int>(block->fibers.size())) {
    f.state = Fiber::in_block;
    switch_to_scheduler(false);
    return block->result;
  }
  for (Fiber& other : block->fibers) {
    if (other.at.line() != at.line())
      fail("divergent barrier: thread " + std::to_string(f.id) + " waits at " + place(at) + ", but thread " +
           std::to_string(other.id) + " at " + place(other.at));
    other.state = Fiber::ready;
  }
  block->in_block = 0;
  block->result = block->votes;
  block->votes = 0;
  return block->result;
}

void async_copy(void* shared, const void* global, int bytes, bool valid) {
  check_aligned(shared, bytes, "the destination of an asynchronous copy");
  if (valid) check_aligned(global, bytes, "the source of an asynchronous copy");
  std::memset(shared, 0xff, static_cast<size_t>(bytes));
  fiber->open.push_back({shared, global, bytes, valid});
}

void async_commit() {
  fiber->groups.push_back(std::move(fiber->open));
  fiber->open.clear();
}

void async_wait(int groups_under_way) {
  while (static_cast<int>(fiber->groups.size()) > groups_under_way) {
    for (const Copy& c : fiber->groups.front()) {
      if (c.valid)
        std::memcpy(c.shared, c.global, static_cast<size_t>(c.bytes));
      else
        std::memset(c.shared, 0, static_cast<size_t>(c.bytes));
    }
    fiber->groups.pop_front();
  }
}

void check_aligned(const void* p, int alignment, const char* what) {
  if (reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(alignment) != 0)
    fail(std::string(what) + " is not on a boundary of " + std::to_string(alignment) + " bytes");
}

}  // namespace simt
