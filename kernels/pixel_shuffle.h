// Pixel shuffle by 2 of packed patch grids: from x[h, w, cols] to y[h/2, w/2, 4 cols],
//   y[I, J, (a 2 + b) cols + k] = x[2I + a, 2J + b, k]   (row parity a slow, column parity b fast), rows
//   row-major.
// h and w are even. inverse: from y back to x, which is also the backward.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct PixelShuffle {
  int images;
  int64_t rows;          // of x, cu[images]
  const int32_t* sizes;  // [images, 2]: h, w of x
  const int32_t* cu;     // [images + 1]: first row of each image in x (cu / 4 in y)
  int cols;              // of x
  bool inverse = false;
  const T* from;  // x, or y where inverse; contiguous
  T* to;
};

MIMO_CONTRACT(PixelShuffle);

}  // namespace mimo
