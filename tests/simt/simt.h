// Runs CUDA kernels on the CPU: one fiber a CUDA thread, one block at a time on every thread of the pool. A
// kernel is the same text that nvcc compiles; overlay/ replaces the headers that reach the hardware, and
// cuda_runtime.h there declares the built-in names by what is here.
//
// One primitive suffices, meet(): the threads of a warp or a block deposit their arguments and the last to
// arrive does the work for all. Barriers, shuffles, votes, ldmatrix and mma are meetings.
//
// It finds: barriers and collectives that not all threads reach together; accesses outside shared memory
// (and, with ASan, outside any buffer); reads of shared memory that was not written (all ones: NaN);
// asynchronous copies that are read before their wait (all ones until then); and, as the four orders of
// threads must give equal bits, missing barriers. noise.h makes functions as inaccurate as a GPU's may be,
// device_memory.h keeps the host from device memory. It does not see: time, bank conflicts, weak memory order
// between blocks.
#pragma once
#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
  unsigned x, y, z;
};

namespace simt {

constexpr int kWarp = 32;

// In which order ready threads run. Fair: every thread in turn, to its next meeting. Greedy: one warp alone,
// to its next block barrier, before another; this shows the missing barrier at the end of a loop. Blocks go
// up or down too.
enum class Order { fair_up, fair_down, greedy_up, greedy_down };
constexpr Order kOrders[] = {Order::fair_up, Order::fair_down, Order::greedy_up, Order::greedy_down};
void set_order(Order);

// What a kernel does wrong.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Runs body on every thread of every block. A block has whole warps, at most 1024 threads.
void run(std::string_view name, dim3 grid, int threads, int shared_bytes, const std::function<void()>& body);

// The current thread and block.
const uint3& thread_index();
const uint3& block_index();
const dim3& block_size();
const dim3& grid_size();
int lane();
void* shared_memory(int bytes);  // the block's; throws where the launch gave another size

// All 32 lanes deposit an argument under one name at one place of the source; `work` is called once, with the
// 32 arguments by lane, and then all go on.
using Work = void (*)(void* const* arguments);
void meet_warp(const char* what, void* argument, Work work,
               const std::source_location& at = std::source_location::current());
// All threads of the block; `vote` sums what they deposit.
int meet_block(int vote, const std::source_location& at = std::source_location::current());

// An asynchronous copy by this thread: the destination is all ones until the wait for its group.
void async_copy(void* shared, const void* global, int bytes, bool valid);
void async_commit();
void async_wait(int groups_under_way);

// Throws unless p is a multiple of `alignment`.
void check_aligned(const void* p, int alignment, const char* what);

}  // namespace simt
