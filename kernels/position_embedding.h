// RADIO's position embedding of a grid of patches: the learned table [grid, grid, cols] is resized to m x m
// with m = max(h, w) (bilinear, align_corners = false, no antialias), its top-left h x w corner is taken.
//   src = max((i + 0.5) grid / m - 0.5, 0), i0 = floor(src), i1 = min(i0 + 1, grid - 1), weight of i1 = src -
//   i0
// m = grid is the identity. The rows of all images are packed; out = x + position (x null: position alone).
// Grid and images have fewer than 2^15 cells a side.
// Backward, gather form (no atomics): dtable += the same weights, over all images in a fixed order.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct PositionEmbedding {
  int images;
  int64_t rows;          // of all images, cu[images]
  const int32_t* sizes;  // [images, 2]: height, width in patches
  const int32_t* cu;     // [images + 1], first row of each image
  int grid;
  int cols;
  const T* table;  // [grid * grid, cols]
  const T* x;      // [rows, cols] or null
  int64_t x_ld;
  T* out;  // [rows, cols]
  int64_t out_ld;
};

template <class T>
struct PositionEmbeddingBackward {
  int images;
  const int32_t* sizes;
  const int32_t* cu;
  int grid;
  int cols;
  const T* dout;
  int64_t dout_ld;
  acc_t<T>* dtable;  // added to
};

MIMO_CONTRACT(PositionEmbedding);
MIMO_CONTRACT(PositionEmbeddingBackward);

}  // namespace mimo
