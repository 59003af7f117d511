// The names that CUDA C++ has built in, for g++ and the emulator.
#pragma once
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "tests/cuda/ulps.h"
#include "tests/simt/noise.h"
#include "tests/simt/simt.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

#define threadIdx (::simt::thread_index())
#define blockIdx (::simt::block_index())
#define blockDim (::simt::block_size())
#define gridDim (::simt::grid_size())

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

// Barriers and warp collectives.
using SimtPlace = std::source_location;

inline void __syncthreads(const SimtPlace& at = SimtPlace::current()) { simt::meet_block(0, at); }
inline int __syncthreads_or(int x, const SimtPlace& at = SimtPlace::current()) {
  return simt::meet_block(x != 0, at) != 0;
}
inline int __syncthreads_count(int x, const SimtPlace& at = SimtPlace::current()) {
  return simt::meet_block(x != 0, at);
}
inline void simt_check_mask(unsigned mask) {
  if (mask != 0xffffffffu) throw simt::Error("a collective of part of a warp");
}
inline void __syncwarp(unsigned mask = 0xffffffffu, const SimtPlace& at = SimtPlace::current()) {
  simt_check_mask(mask);
  simt::meet_warp("__syncwarp", nullptr, nullptr, at);
}

template <class T>
struct SimtShuffle {
  T value, result;
  int from;
};
template <class T>
T simt_shuffle(unsigned mask, T value, int from, const SimtPlace& at) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  simt_check_mask(mask);
  SimtShuffle<T> mine{value, value, from};
  simt::meet_warp(
      "__shfl_sync", &mine,
      [](void* const* lanes) {
        for (int i = 0; i < simt::kWarp; ++i) {
          auto* s = static_cast<SimtShuffle<T>*>(lanes[i]);
          s->result = static_cast<SimtShuffle<T>*>(lanes[s->from])->value;
        }
      },
      at);
  return mine.result;
}
template <class T>
T __shfl_sync(unsigned mask, T x, int from, int width = 32, const SimtPlace& at = SimtPlace::current()) {
  const int lane = simt::lane();
  return simt_shuffle(mask, x, lane / width * width + (from & (width - 1)), at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int with, int width = 32, const SimtPlace& at = SimtPlace::current()) {
  const int lane = simt::lane(), from = lane ^ with;
  return simt_shuffle(mask, x, from / width <= lane / width ? from : lane, at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32,
                 const SimtPlace& at = SimtPlace::current()) {
  const int lane = simt::lane(), from = lane - static_cast<int>(by);
  return simt_shuffle(mask, x, from >= lane / width * width ? from : lane, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32,
                   const SimtPlace& at = SimtPlace::current()) {
  const int lane = simt::lane(), from = lane + static_cast<int>(by);
  return simt_shuffle(mask, x, from < (lane / width + 1) * width ? from : lane, at);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, const SimtPlace& at = SimtPlace::current()) {
  simt_check_mask(mask);
  unsigned mine = predicate != 0;
  simt::meet_warp(
      "__ballot_sync", &mine,
      [](void* const* lanes) {
        unsigned all = 0;
        for (int i = 0; i < simt::kWarp; ++i) all |= *static_cast<unsigned*>(lanes[i]) << i;
        for (int i = 0; i < simt::kWarp; ++i) *static_cast<unsigned*>(lanes[i]) = all;
      },
      at);
  return mine;
}
inline int __any_sync(unsigned mask, int x, const SimtPlace& at = SimtPlace::current()) {
  return __ballot_sync(mask, x, at) != 0;
}
inline int __all_sync(unsigned mask, int x, const SimtPlace& at = SimtPlace::current()) {
  return __ballot_sync(mask, x, at) == 0xffffffffu;
}

// Integers alone: sums of floats would depend on the order of threads.
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> x) {
  static_assert(std::is_integral_v<T>);
  return std::atomic_ref<T>(*p).fetch_add(x);
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> x) {
  static_assert(std::is_integral_v<T>);
  std::atomic_ref<T> at(*p);
  T old = at.load();
  while (old < x && !at.compare_exchange_weak(old, x)) {
  }
  return old;
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> x) {
  static_assert(std::is_integral_v<T>);
  std::atomic_ref<T> at(*p);
  T old = at.load();
  while (x < old && !at.compare_exchange_weak(old, x)) {
  }
  return old;
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> x) {
  static_assert(std::is_integral_v<T>);
  return std::atomic_ref<T>(*p).exchange(x);
}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() {}

// Memory and arithmetic.
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, std::type_identity_t<T> x) {
  *p = x;
}
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(unsigned x) { return std::countl_zero(x); }
inline int __ffs(unsigned x) { return x ? std::countr_zero(x) + 1 : 0; }
template <class T>
constexpr T max(T a, std::type_identity_t<T> b) {
  return a < b ? b : a;
}
template <class T>
constexpr T min(T a, std::type_identity_t<T> b) {
  return b < a ? b : a;
}

// Functions that a GPU approximates, where kernels find them before the C library's: with the errors that
// noise asks for. One that is used first needs its bound here.
namespace mimo::cuda {

inline float expf(float x) {
  return simt::approximate(
      {1, ulps::kExpf, true}, [](auto v) { return std::exp(v); }, x);
}
inline float logf(float x) {
  return simt::approximate(
      {2, ulps::kLogf, false}, [](auto v) { return std::log(v); }, x);
}
inline float log1pf(float x) {
  return simt::approximate(
      {3, ulps::kLog1pf, false}, [](auto v) { return std::log1p(v); }, x);
}
// Zero where y is so large that 1 / y would be subnormal.
inline float __fdividef(float x, float y) {
  if (std::isfinite(y) && std::fabs(y) > 0x1p126f) y = INFINITY;
  return simt::approximate(
      {4, ulps::kFdividef, false}, [](auto v, auto w) { return v / w; }, x, y);
}
inline double exp(double x) {
  return simt::approximate(
      {5, ulps::kExpDouble, true}, [](auto v) { return std::exp(v); }, x);
}
inline double log(double x) {
  return simt::approximate(
      {6, ulps::kLogDouble, false}, [](auto v) { return std::log(v); }, x);
}
inline double pow(double x, double y) {
  if (y == 0 || x == 1) return 1;
  return simt::approximate(
      {7, ulps::kPowDouble, false}, [](auto v, auto w) { return std::pow(v, w); }, x, y);
}

float exp2f(float) = delete;
float expm1f(float) = delete;
float log2f(float) = delete;
float log10f(float) = delete;
float powf(float, float) = delete;
float tanhf(float) = delete;
float sinf(float) = delete;
float cosf(float) = delete;
float erff(float) = delete;
float cbrtf(float) = delete;
double exp2(double) = delete;
double expm1(double) = delete;
double log1p(double) = delete;
double log2(double) = delete;
double tanh(double) = delete;
double sin(double) = delete;
double cos(double) = delete;
double erf(double) = delete;

}  // namespace mimo::cuda
