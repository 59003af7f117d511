// The second stage of a sum over blocks of work, in a fixed order: out[i] += sum over b < blocks of
// partial[b * ld + i], i < n. A thread block owns 32 columns; its 8 warps take every eighth row, and the
// columns of their sums are added in order. Limit: bytes of `partial`, each read once, in rows of 128 bytes.
#pragma once
#include "kernels/cuda/warp.cuh"

namespace mimo::cuda {

constexpr int kPartialSumsWarps = 8;
struct PartialSumsShared {
  float sum[kPartialSumsWarps][kWarp];
};

template <class A>
__global__ void __launch_bounds__(kPartialSumsWarps* kWarp)
    add_partial_sums_kernel(int64_t blocks, int64_t n, const A* partial, int64_t ld, A* out) {
  MIMO_SHARED(PartialSumsShared, s);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t column = int64_t{blockIdx.x} * kWarp + lane;
  A sum = 0;
  if (column < n) {
#pragma unroll 4
    for (int64_t b = warp; b < blocks; b += kPartialSumsWarps) sum += partial[b * ld + column];
  }
  s.sum[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= n) return;
  for (int w = 1; w < kPartialSumsWarps; ++w) sum += s.sum[w][lane];
  out[column] += sum;
}

inline void add_partial_sums(const Cuda& context, int64_t blocks, int64_t n, const float* partial, int64_t ld,
                             float* out) {
  if (blocks > 0)
    launch<add_partial_sums_kernel<float>, PartialSumsShared>(
        context, dim3(static_cast<unsigned>(ceil_div(n, kWarp))), kPartialSumsWarps * kWarp, blocks, n,
        partial, ld, out);
}

}  // namespace mimo::cuda
