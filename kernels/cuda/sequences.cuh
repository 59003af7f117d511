// Places in packed sequences, found on the device: cu is known there alone.
#pragma once
#include "kernels/cuda/launch.cuh"

namespace mimo::cuda {

// The sequence of row t, of cu[0] <= t < cu[sequences]. Empty sequences have no rows.
__device__ inline int sequence_of(const int32_t* cu, int sequences, int64_t t) {
  int low = 0, high = sequences;  // cu[low] <= t < cu[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (cu[middle] <= t ? low : high) = middle;
  }
  return low;
}

}  // namespace mimo::cuda
