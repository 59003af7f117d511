// Packed images of any size: cu[0..images] are their first rows.
#pragma once
#include "kernels/cuda/launch.cuh"

namespace mimo::cuda {

// The image that a row lies in: the last one that begins at or before it.
__device__ inline int image_of(int64_t row, const int32_t* cu, int images) {
  int low = 0, high = images - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (cu[middle] <= row)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

}  // namespace mimo::cuda
