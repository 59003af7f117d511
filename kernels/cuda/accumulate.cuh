// Vectors of N floats beside vectors of N bf16: as many accesses of 16 bytes as they need (N = 1: one of
// four).
#pragma once
#include "kernels/cuda/vector.cuh"

namespace mimo::cuda {

template <int N>
constexpr int kFloatsOnce = N == 1 ? 1 : 4;

template <int N>
__device__ inline void load_floats(float (&x)[N], const float* p) {
  constexpr int kOnce = kFloatsOnce<N>;
#pragma unroll
  for (int i = 0; i < N; i += kOnce) load<kOnce>(reinterpret_cast<float(&)[kOnce]>(x[i]), p + i);
}
template <int N>
__device__ inline void store_floats(float* p, const float (&x)[N]) {
  constexpr int kOnce = kFloatsOnce<N>;
#pragma unroll
  for (int i = 0; i < N; i += kOnce) store<kOnce>(p + i, reinterpret_cast<const float(&)[kOnce]>(x[i]));
}
template <int N>
__device__ inline void add_floats(float* p, const float (&x)[N]) {
  float y[N];
  load_floats<N>(y, p);
#pragma unroll
  for (int i = 0; i < N; ++i) y[i] += x[i];
  store_floats<N>(p, y);
}

}  // namespace mimo::cuda
