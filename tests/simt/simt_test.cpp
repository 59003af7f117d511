// The emulator's own tests: what it computes, and that it catches planted faults.
#include "tests/simt/simt.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo::cuda {

// Sums a block's input through shared memory; the faults leave out what is commented.
enum class Fault { none, no_barrier, no_last_barrier, off_by_one, divergent, half_warp, early_leave };

struct RotateShared {
  int value[64];
};

// out[i] = the sum over three rounds of a neighbour's value: each round writes shared memory that others
// read.
template <Fault F>
__global__ void rotate(const int* in, int* out) {
  MIMO_SHARED(RotateShared, s);
  const int i = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  int sum = 0;
  for (int round = 0; round < 3; ++round) {
    s.value[F == Fault::off_by_one ? i + 1 : i] = in[i] + round;
    if constexpr (F == Fault::divergent) {
      if (i < n / 2)
        __syncthreads();
      else
        __syncthreads();
    } else if constexpr (F == Fault::early_leave) {
      if (i == n - 1) return;
      __syncthreads();
    } else if constexpr (F != Fault::no_barrier) {
      __syncthreads();
    }
    sum += s.value[(i + kWarp) % n];
    if constexpr (F != Fault::no_last_barrier && F != Fault::no_barrier) __syncthreads();
    if constexpr (F == Fault::half_warp) {
      if (i % kWarp < kWarp / 2) sum += __shfl_xor_sync(kAllLanes, 0, 1);
    }
  }
  out[i] = sum;
}

namespace {

using simt::Order;

template <Fault F>
std::vector<int> run_rotate(Order order) {
  simt::set_order(order);
  std::vector<int> in(64), out(64, -1);
  for (int i = 0; i < 64; ++i) in[i] = i * i;
  launch<rotate<F>, RotateShared>(Cuda{}, dim3(1), 64, in.data(), out.data());
  simt::set_order(Order::fair_up);
  return out;
}

template <Fault F>
std::string message() {
  try {
    run_rotate<F>(Order::fair_up);
  } catch (const simt::Error& e) {
    return e.what();
  }
  return "nothing caught";
}

// Whether some order of threads gives other results than the first.
template <Fault F>
bool orders_agree() {
  const std::vector<int> first = run_rotate<F>(Order::fair_up);
  for (Order o : simt::kOrders)
    if (run_rotate<F>(o) != first) return false;
  return true;
}

TEST(Simt, OrdersAgreeOnACorrectKernel) {
  EXPECT_TRUE(orders_agree<Fault::none>());
  const std::vector<int> out = run_rotate<Fault::none>(Order::greedy_down);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(out[i], 3 * ((i + 32) % 64) * ((i + 32) % 64) + 3);
}

TEST(Simt, MissingBarrierShows) { EXPECT_FALSE(orders_agree<Fault::no_barrier>()); }
TEST(Simt, MissingBarrierAtTheEndOfALoopShows) { EXPECT_FALSE(orders_agree<Fault::no_last_barrier>()); }

TEST(Simt, OffByOneIsCaught) {
#if defined(__SANITIZE_ADDRESS__)
  EXPECT_DEATH(message<Fault::off_by_one>(), "heap-buffer-overflow");
#else
  EXPECT_NE(message<Fault::off_by_one>().find("wrote behind its shared memory"), std::string::npos);
#endif
}

TEST(Simt, DivergentBarriersAreCaught) {
  EXPECT_NE(message<Fault::divergent>().find("divergent barrier"), std::string::npos)
      << message<Fault::divergent>();
  EXPECT_NE(message<Fault::half_warp>().find("divergent barrier"), std::string::npos)
      << message<Fault::half_warp>();
  const std::string early = message<Fault::early_leave>();
  EXPECT_NE(early.find("thread 63 has left"), std::string::npos) << early;
}

}  // namespace

struct AsyncShared {
  alignas(16) float value[4];
};
template <bool Wait, bool Commit>
__global__ void copy_async(const float* in, float* out) {
  MIMO_SHARED(AsyncShared, s);
  if (threadIdx.x == 0) {
    cp_async_16(s.value, in);
    if (Commit) cp_async_commit();
    if (Wait) cp_async_wait<0>();
  }
  __syncthreads();
  if (threadIdx.x < 4) out[threadIdx.x] = s.value[threadIdx.x];
}

__global__ void read_unwritten(float* out) {
  MIMO_SHARED(AsyncShared, s);
  out[threadIdx.x] = s.value[threadIdx.x % 4];
}

namespace {

alignas(16) const float kFour[4] = {1, 2, 3, 4};

TEST(Simt, AsynchronousCopiesArriveAtTheirWait) {
  float out[4];
  launch<copy_async<true, true>, AsyncShared>(Cuda{}, dim3(1), 32, kFour, out);
  EXPECT_EQ(out[3], 4);
  EXPECT_THROW((launch<copy_async<false, true>, AsyncShared>(Cuda{}, dim3(1), 32, kFour, out)), simt::Error);
  EXPECT_TRUE(std::isnan(out[0])) << "read before its wait";
  EXPECT_THROW((launch<copy_async<false, false>, AsyncShared>(Cuda{}, dim3(1), 32, kFour, out)), simt::Error);
  EXPECT_THROW((launch<copy_async<true, true>, AsyncShared>(Cuda{}, dim3(1), 32, kFour + 1, out)),
               simt::Error)
      << "not aligned";
}

TEST(Simt, SharedMemoryStartsAsNaN) {
  float out[32];
  launch<read_unwritten, AsyncShared>(Cuda{}, dim3(1), 32, out);
  for (float x : out) EXPECT_TRUE(std::isnan(x));
}

TEST(Simt, BlocksAreWholeWarps) {
  float out[32];
  EXPECT_THROW((launch<read_unwritten, AsyncShared>(Cuda{}, dim3(1), 20, out)), simt::Error);
  launch<read_unwritten, AsyncShared>(Cuda{}, dim3(0), 32, out);  // no blocks: nothing
}

}  // namespace

// C [16, 8] = A [16, 16] B [16, 8], by ldmatrix and mma: A row-major, B row-major through the transposing
// load.
struct ProductShared {
  alignas(16) bf16 a[16][16], b[16][16];
};
__global__ void product(const float* a, const float* b, float* c) {
  MIMO_SHARED(ProductShared, s);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += kWarp) s.a[i / 16][i % 16] = a[i];
  for (int i = lane; i < 256; i += kWarp) s.b[i / 16][i % 16] = i % 16 < 8 ? b[i / 16 * 8 + i % 16] : 0.f;
  __syncwarp();
  uint32_t fa[4], fb[4];
  ldmatrix_x4(fa, &s.a[lane % 16][lane / 16 * 8]);
  ldmatrix_x4_trans(fb, &s.b[lane % 16][lane / 16 * 8]);
  float d[4] = {};
  const uint32_t left[2] = {fb[0], fb[1]};
  mma_bf16(d, fa, left);
  const int g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}

namespace {

TEST(Simt, MmaMultipliesWhatLdmatrixLoads) {
  std::vector<float> a(256), b(128), c(128);
  for (int i = 0; i < 256; ++i) a[i] = static_cast<float>(i % 13 - 6);
  for (int i = 0; i < 128; ++i) b[i] = static_cast<float>(i % 7 - 3);
  launch<product, ProductShared>(Cuda{}, dim3(1), 32, a.data(), b.data(), c.data());
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n) {
      float want = 0;
      for (int k = 0; k < 16; ++k) want += a[m * 16 + k] * b[k * 8 + n];
      EXPECT_EQ(c[m * 8 + n], want) << m << ", " << n;
    }
}

}  // namespace
}  // namespace mimo::cuda
