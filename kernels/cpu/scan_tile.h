// What the scans do with tiles besides multiplying them: loading and storing with conversion, transposing
// with zeros in the padding. Rows are padded to whole vectors; what lies in the padding never reaches a valid
// element, since padded columns of B only feed padded columns of C.
#pragma once
#include <algorithm>

#include "kernels/cpu/tile.h"

namespace mimo::cpu {

using tile::Band;

template <class A>
constexpr int padded(int n) {
  return static_cast<int>(tile::padded<A>(n));
}

// Out [rows, out_ld] from x, zero in columns [cols, out_ld).
template <class T, class A>
void load_tile(int rows, int cols, const T* x, int64_t x_ld, A* out, int out_ld) {
  for (int i = 0; i < rows; ++i, x += x_ld, out += out_ld) {
#pragma omp simd
    for (int c = 0; c < cols; ++c) out[c] = A(x[c]);
    for (int c = cols; c < out_ld; ++c) out[c] = 0;
  }
}

template <class T, class A>
void store_tile(int rows, int cols, const A* in, int in_ld, T* y, int64_t y_ld) {
  for (int i = 0; i < rows; ++i, y += y_ld, in += in_ld) {
#pragma omp simd
    for (int c = 0; c < cols; ++c) y[c] = in[c];
  }
}

// out [cols, out_ld] = in [rows, in_ld]^T, zero in columns [rows, out_ld).
template <class A>
void transpose(int rows, int cols, const A* in, int64_t in_ld, A* out, int64_t out_ld) {
  for (int c = 0; c < cols; ++c, out += out_ld) {
    for (int i = 0; i < rows; ++i) out[i] = in[i * in_ld + c];
    std::fill(out + rows, out + out_ld, A(0));
  }
}

// 0, 1, 2, ... in integers of A's size.
template <class A>
struct Indices {
  using Int = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
  Vec<Int> v;
  constexpr Indices() : v{} {
    for (int i = 0; i < lanes<A>; ++i) v[i] = i;
  }
};

template <class A>
A sum_lanes(Vec<A> x) {
  const auto index = Indices<A>().v;
#pragma GCC unroll 4
  for (int h = lanes<A> / 2; h > 0; h /= 2) x += __builtin_shuffle(x, index ^ h);
  return x[0];
}

// The same between tiles, whose rows are whole vectors, in squares of registers.
template <class A>
void transpose_tile(int rows, int cols, const A* in, int in_ld, A* out, int out_ld) {
  constexpr int L = lanes<A>;
  constexpr std::make_integer_sequence<int, L> lane;
  for (int i0 = 0; i0 < out_ld; i0 += L)
    for (int c0 = 0; c0 < cols; c0 += L) {
      Vec<A> r[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) r[i] = i0 + i < rows ? load(in + (i0 + i) * in_ld + c0) : Vec<A>{};
      if constexpr (L > 8) tile::swap_blocks<8, A>(r, lane);
      if constexpr (L > 4) tile::swap_blocks<4, A>(r, lane);
      if constexpr (L > 2) tile::swap_blocks<2, A>(r, lane);
      tile::swap_blocks<1, A>(r, lane);
#pragma GCC unroll 16
      for (int c = 0; c < L; ++c)
        if (c0 + c < cols) store(out + (c0 + c) * out_ld + i0, r[c]);
    }
}

template <class A>
A dot(int n, const A* x, const A* y) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

}  // namespace mimo::cpu
