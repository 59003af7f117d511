// Sums and maxima over a warp and a block, in a fixed order.
#pragma once
#include "kernels/cuda/launch.cuh"

namespace mimo::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

template <class A>
__device__ inline A warp_sum(A x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
template <class A>
__device__ inline A warp_max(A x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const A y = __shfl_xor_sync(kAllLanes, x, step);
    x = y > x ? y : x;
  }
  return x;
}

// The sum over a block of whole warps, at most 32, to all threads. `scratch`: 32 elements of shared memory;
// two calls in a row may share them.
template <class A>
__device__ inline A block_sum(A x, A* scratch) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  x = warp_sum(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = warp_sum(lane < warps ? scratch[lane] : A(0));
  __syncthreads();
  return x;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace mimo::cuda
