// Conversions between float and bf16 (round to nearest even), and the fast base-2 exponential.
#pragma once
#include "kernels/cuda/launch.cuh"

namespace mimo::cuda {

// Two floats as one word of bf16, `low` in the low half.
__device__ inline uint32_t pack_bf16(float low, float high) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
__device__ inline float low_bf16(uint32_t word) { return __uint_as_float(word << 16); }
__device__ inline float high_bf16(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }

template <class T>
__device__ inline T to_type(float x) {
  if constexpr (sizeof(T) == 2) {
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    T y;
    y.bits = bits;
    return y;
  } else {
    return x;
  }
}

// 2^x with a relative error of 2^-22; -inf gives 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace mimo::cuda
