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

struct PositionEmbeddingInputs {
  int images;
  const int32_t* sizes;  // [images, 2]: height, width in patches
  const int32_t* cu;     // [images + 1], first row of each image
  int grid, cols;
};

template <class T>
struct PositionEmbedding {
  PositionEmbeddingInputs in;
  int64_t rows;          // of all images, cu[images]
  const T* table;        // [grid * grid, cols]
  Rows<const T> x = {};  // [rows, cols] or null
  Rows<T> out;           // [rows, cols]
};

template <class T>
struct PositionEmbeddingBackward {
  PositionEmbeddingInputs in;
  Rows<const T> dout;
  acc_t<T>* dtable;  // added to
};

MIMO_CONTRACT(PositionEmbedding);
MIMO_CONTRACT(PositionEmbeddingBackward);

}  // namespace mimo
