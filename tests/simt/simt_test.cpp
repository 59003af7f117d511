// The emulator's own tests: what it computes, and that it catches planted faults.
#include "tests/simt/simt.h"

#include <gtest/gtest.h>

#include <iterator>
#include <set>
#include <vector>

#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/warp.cuh"
#include "tests/simt/device_memory.h"

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

// --- errors of functions

using simt::Noise;

struct WithNoise {
  explicit WithNoise(Noise n) { simt::set_noise(n); }
  ~WithNoise() { simt::set_noise(Noise::none); }
};

// All distances, in units of the last place and away from zero, of f(x) from f in a wider type.
template <class T, class F, class Exact>
std::set<int64_t> distances(Noise noise, const F& f, const Exact& exact) {
  const WithNoise n(noise);
  std::set<int64_t> all;
  for (int i = 1; i < 1000; ++i) {
    const T x = static_cast<T>(i) / 64, y = static_cast<T>(exact(x));
    const auto bits = [](T v) { return static_cast<int64_t>(std::bit_cast<simt::Bits<T>>(std::fabs(v))); };
    all.insert(bits(f(x)) - bits(y));
  }
  return all;
}
using Distances = std::set<int64_t>;

// The bound is reached, and not passed. Exponentials go the other way than other functions where they err
// apart.
template <class T, class F, class Exact>
void check_errors(const F& f, const Exact& exact, int64_t bound, bool exponential) {
  EXPECT_EQ(distances<T>(Noise::away, f, exact), Distances{bound});
  EXPECT_EQ(distances<T>(Noise::apart, f, exact), Distances{exponential ? -bound : bound});
  EXPECT_EQ(distances<T>(Noise::mixed, f, exact), (Distances{-bound, bound}));
}

TEST(Noise, FunctionsErrByTheirBounds) {
  check_errors<float>(
      expf, [](double x) { return std::exp(x); }, ulps::kExpf, true);
  check_errors<float>(
      exp2_fast, [](double x) { return std::exp2(x); }, ulps::kEx2, true);
  check_errors<float>(
      log1pf, [](double x) { return std::log1p(x); }, ulps::kLog1pf, false);
  check_errors<float>([](float x) { return logf(x + 2); }, [](double x) { return std::log(x + 2); },
                      ulps::kLogf, false);
  check_errors<float>([](float x) { return __fdividef(-3, x); }, [](double x) { return -3 / x; },
                      ulps::kFdividef, false);
  using Wide = long double;
  check_errors<double>(
      static_cast<double (*)(double)>(exp), [](Wide x) { return std::exp(x); }, ulps::kExpDouble, true);
  check_errors<double>([](double x) { return log(x + 2); }, [](Wide x) { return std::log(x + 2); },
                       ulps::kLogDouble, false);
  check_errors<double>([](double x) { return pow(10000, -x); },
                       [](Wide x) { return std::pow(Wide(10000), -x); }, ulps::kPowDouble, false);
}

TEST(Noise, NoneIsTheMachinesOwn) {
  EXPECT_EQ(expf(1.5f), std::exp(1.5f));
  EXPECT_EQ(__fdividef(1, 3), 1 / 3.f);
}

TEST(Noise, LeavesDocumentedValues) {
  for (const Noise noise : {Noise::none, Noise::away, Noise::apart, Noise::mixed}) {
    const WithNoise n(noise);
    EXPECT_EQ(expf(0), 1);
    EXPECT_EQ(expf(-0.f), 1);
    EXPECT_EQ(expf(-INFINITY), 0);
    EXPECT_EQ(expf(INFINITY), INFINITY);
    EXPECT_TRUE(std::isnan(expf(NAN)));
    EXPECT_EQ(logf(1), 0);
    EXPECT_EQ(logf(0), -INFINITY);
    EXPECT_EQ(log1pf(0), 0);
    EXPECT_EQ(pow(0.9, 0.0), 1);
    EXPECT_EQ(exp2_fast(0), 1);
    EXPECT_EQ(exp2_fast(1e-39f), 1) << "a subnormal argument is zero";
    EXPECT_EQ(exp2_fast(-127), 0) << "a subnormal result is zero";
    EXPECT_GT(exp2_fast(-125), 0);
    EXPECT_EQ(exp2_fast(-INFINITY), 0);
    EXPECT_TRUE(std::isnan(exp2_fast(NAN)));
    EXPECT_EQ(__fdividef(1, INFINITY), 0);
    EXPECT_EQ(__fdividef(1, 0x1p127f), 0) << "1 / y is zero where it would be subnormal";
    EXPECT_TRUE(std::isnan(__fdividef(INFINITY, 0x1p127f)));
    EXPECT_TRUE(std::isfinite(expf(88.72283f))) << "as large as a float gets";
  }
}

}  // namespace

__global__ void functions(float* out) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const float x = 0.01f * static_cast<float>(i);
  out[i] = logf(1 + expf(x)) + __fdividef(x, 1 + exp2_fast(x));
}

namespace {

TEST(Noise, IsOfArgumentsAlone) {
  std::set<std::vector<float>> results;
  for (const Noise noise : simt::kNoises) {
    const WithNoise n(noise);
    for (const Order o : simt::kOrders) {
      simt::set_order(o);
      std::vector<float> out(1024);
      launch<functions>(Cuda{}, dim3(8), 128, out.data());
      results.insert(out);
    }
  }
  simt::set_order(Order::fair_up);
  EXPECT_EQ(results.size(), std::size(simt::kNoises)) << "one for each kind, whatever the order";
}

// --- device memory

struct DeviceFloats {
  float* data;
  explicit DeviceFloats(int64_t n) : data(static_cast<float*>(simt::allocate_device(4 * n))) {}
  ~DeviceFloats() { simt::free_device(data); }
  DeviceFloats(const DeviceFloats&) = delete;
};

TEST(DeviceMemory, OnlyKernelsAndCopiesTouchIt) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";  // there are others
  const DeviceFloats x(1024);
  launch<functions>(Cuda{}, dim3(8), 128, x.data);
  float first[2];
  simt::copy(first, x.data, sizeof first);
  EXPECT_GT(first[1], first[0]);
  const volatile float* p = x.data;
  EXPECT_DEATH(static_cast<void>(p[5]), "the host touched device memory");
  EXPECT_DEATH(launch<functions>(Cuda{}, dim3(1), 128, x.data + 960),
               "left the device memory it may touch|use-after-poison");
  const simt::DeviceAccess access;
  EXPECT_EQ(p[1], first[1]);
}

TEST(DeviceMemory, HasAnEnd) {
  EXPECT_EQ(simt::allocate_device(simt::kDeviceMemory + 1), nullptr);
  void* nothing = simt::allocate_device(0);
  EXPECT_NE(nothing, nullptr);
  simt::free_device(nothing);
}

}  // namespace
}  // namespace mimo::cuda
