// Dense tiles in scratch memory: loading (with conversion), transposing and multiplying them. Rows are padded
// to whole vectors; what lies in the padding never reaches a valid element, since padded columns of B only
// feed padded columns of C.
#pragma once
#include <algorithm>

#include "kernels/cpu/simd.h"
#include "kernels/kernel.h"

namespace mimo::cpu {

template <class A>
constexpr int padded(int n) {
  return (n + lanes<A> - 1) / lanes<A> * lanes<A>;
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
    for (int c = 0; c < cols; ++c) y[c] = T(in[c]);
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

// The same between tiles, whose rows are whole vectors, in squares of registers: stage h swaps bit h of the
// row number with bit h of the lane number.
template <class A>
void transpose_tile(int rows, int cols, const A* in, int in_ld, A* out, int out_ld) {
  constexpr int L = lanes<A>;
  const auto index = Indices<A>().v;
  for (int i0 = 0; i0 < out_ld; i0 += L)
    for (int c0 = 0; c0 < cols; c0 += L) {
      Vec<A> r[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) r[i] = i0 + i < rows ? load(in + (i0 + i) * in_ld + c0) : Vec<A>{};
#pragma GCC unroll 4
      for (int h = L / 2; h > 0; h /= 2) {
        const auto upper = (index & h) != 0;
        const auto low = upper ? (index ^ h) + L : index, high = upper ? index + L : index ^ h;
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i)
          if (!(i & h)) {
            const Vec<A> a = r[i], b = r[i + h];
            r[i] = __builtin_shuffle(a, b, low);
            r[i + h] = __builtin_shuffle(a, b, high);
          }
      }
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

// A matrix by its two strides: element (i, k) is data[i * row + k * col], so a transpose is free.
template <class A>
struct Strided {
  const A* data;
  int64_t row, col;
};

// Triangles of a square operand: lower has k <= i, upper k >= i. Off-triangle elements less than kTileRows
// from the diagonal of an input must be zero, others are not read; those of an output are unspecified.
enum class Band { full, lower, upper };
constexpr int kTileRows = 6;
constexpr int kTileVectors = vector_bytes == 64 ? 4 : 2;  // 6 x 4 (6 x 2) accumulators fill the registers

template <class A, int M, int V>
inline void gemm_tile(int k, const A* a, int64_t a_row, int64_t a_col, const A* b, int64_t b_ld, A beta, A* c,
                      int64_t c_ld) {
  Vec<A> sum[M][V] = {};
  for (int p = 0; p < k; ++p, a += a_col, b += b_ld) {
    Vec<A> row[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) row[v] = load(b + v * lanes<A>);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[i][v] += a[i * a_row] * row[v];
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      A* out = c + i * c_ld + v * lanes<A>;
      store(out, beta == A(0) ? sum[i][v] : beta * load(out) + sum[i][v]);
    }
}

// C [m, n] = beta C + A B with A [m, k], B [k, n] and n a multiple of the vector width; beta = 0 never reads
// C. in: the triangle that A fills. out: the triangle of C that is wanted.
template <class A>
void gemm(int m, int n, int k, Strided<A> a, const A* b, int64_t b_ld, A beta, A* c, int64_t c_ld,
          Band in = Band::full, Band out = Band::full) {
  for (int j = 0; j < n;) {
    const auto panel = [&]<int V>() {
      const int end = out == Band::upper ? std::min(m, j + V * lanes<A>) : m;
      for (int i = out == Band::lower ? j : 0; i < end;) {
        const auto tile = [&]<int M>() {
          const int first = in == Band::upper ? i : 0, last = in == Band::lower ? std::min(k, i + M) : k;
          gemm_tile<A, M, V>(last - first, a.data + i * a.row + first * a.col, a.row, a.col,
                             b + first * b_ld + j, b_ld, beta, c + i * c_ld + j, c_ld);
          i += M;
        };
        const int left = end - i;
        if (left >= kTileRows)
          tile.template operator()<kTileRows>();
        else if (left >= 4)
          tile.template operator()<4>();
        else if (left >= 2)
          tile.template operator()<2>();
        else
          tile.template operator()<1>();
      }
      j += V * lanes<A>;
    };
    const int left = (n - j) / lanes<A>;
    const int width =
        left >= 2 * kTileVectors || left <= kTileVectors ? std::min(left, kTileVectors) : (left + 1) / 2;
    if (width == 1)
      panel.template operator()<1>();
    else if (width == 2)
      panel.template operator()<2>();
    else if constexpr (kTileVectors == 4) {
      if (width == 3)
        panel.template operator()<3>();
      else
        panel.template operator()<4>();
    }
  }
}

}  // namespace mimo::cpu
