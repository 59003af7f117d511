// Rotary position embedding, half-rotation form, on the first `rotary` of head_dim dims of every head:
//   angle_j = position theta^(-2j / rotary), j < rotary / 2
//   y = x cos + rotate_half(x) sin, rotate_half([x1, x2]) = [-x2, x1]
// The other dims are copied. inverse: sin -> -sin, which is the backward. Angles in double, rounded once. y
// may be x. Source: Su et al., RoFormer, 2021 (arXiv 2104.09864).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct Rope {
  int64_t tokens;
  int heads, head_dim, rotary;
  double theta;
  const int32_t* positions;  // [tokens]
  bool inverse = false;
  Rows<const T> x;  // [tokens, heads * head_dim]
  Rows<T> y;
};

MIMO_CONTRACT(Rope);

}  // namespace mimo
