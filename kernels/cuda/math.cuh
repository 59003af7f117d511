// Functions of float for kernels whose results are stored as T: for float to an ulp or two, for bf16 by the
// special function unit, whose errors are far below bf16's rounding.
#pragma once
#include "kernels/cuda/ptx/convert.cuh"

namespace mimo::cuda {

template <class T>
__device__ inline float exp_for(float x) {
  if constexpr (sizeof(T) == 2)
    return exp2_fast(x * 1.44269504f);
  else
    return expf(x);
}
template <class T>
__device__ inline float divide_for(float x, float y) {
  if constexpr (sizeof(T) == 2)
    return __fdividef(x, y);
  else
    return x / y;
}
template <class T>
__device__ inline float sigmoid_for(float x) {
  return divide_for<T>(1, 1 + exp_for<T>(-x));
}

}  // namespace mimo::cuda
