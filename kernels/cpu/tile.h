// Small dense tiles in cache: products whose operands and result fit L1/L2, transposition, loading with
// conversion. Sizes in the vector direction are whole vectors; buffers are padded to them.
#pragma once
#include <algorithm>
#include <utility>

#include "kernels/cpu/simd.h"
#include "kernels/kernel.h"

namespace mimo::tile {

template <class A>
constexpr int64_t padded(int64_t n) {
  return (n + lanes<A> - 1) / lanes<A> * lanes<A>;
}

// Rows of C held in registers for V vectors a row, so that sums, a row of B and an element of A fit 32
// (AVX-512) or 16 registers.
template <int V>
inline constexpr int register_rows = vector_bytes == 64 ? (V == 3   ? 8
                                                           : V == 2 ? 12
                                                                    : 16)
                                                        : (V == 3 ? 4 : 6);

// One register block of the product below: M rows, V vectors.
template <bool trans_a, bool add, int M, int V, class A>
[[gnu::always_inline]] inline void product_block(int64_t k, const A* a, int64_t a_ld, const A* b,
                                                 int64_t b_ld, A* c, int64_t c_ld) {
  Vec<A> sum[M][V];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) sum[i][v] = Vec<A>{};
  for (int64_t p = 0; p < k; ++p) {
    Vec<A> row[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) row[v] = load(b + p * b_ld + v * lanes<A>);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const A x = trans_a ? a[p * a_ld + i] : a[i * a_ld + p];
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) sum[i][v] += x * row[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      A* y = c + i * c_ld + v * lanes<A>;
      store(y, add ? load(y) + sum[i][v] : sum[i][v]);
    }
}

// m < M rows in one block.
template <bool trans_a, bool add, int V, int M, class A>
void product_rest(int64_t m, int64_t k, const A* a, int64_t a_ld, const A* b, int64_t b_ld, A* c,
                  int64_t c_ld) {
  if constexpr (M > 1) {
    if (m == M - 1)
      product_block<trans_a, add, M - 1, V>(k, a, a_ld, b, b_ld, c, c_ld);
    else
      product_rest<trans_a, add, V, M - 1>(m, k, a, a_ld, b, b_ld, c, c_ld);
  }
}

// Triangles of a square operand: lower has k <= i, upper k >= i. Elements of A beyond the diagonal must be
// zero for band_margin places, and are not read further out; those of C are unspecified.
enum class Band { full, lower, upper };
inline constexpr int band_margin = register_rows<1>;

// Rows [i, m) of a column panel of V vectors.
template <bool trans_a, bool add, int V, class A>
void product_panel(int64_t i, int64_t m, int64_t k, const A* a, int64_t a_ld, const A* b, int64_t b_ld, A* c,
                   int64_t c_ld, Band in) {
  constexpr int M = register_rows<V>;
  for (; i < m; i += M) {
    const int64_t first = in == Band::upper ? i : 0, last = in == Band::lower ? std::min(k, i + M) : k;
    const A* from = trans_a ? a + first * a_ld + i : a + i * a_ld + first;
    if (m - i >= M)
      product_block<trans_a, add, M, V>(last - first, from, a_ld, b + first * b_ld, b_ld, c + i * c_ld, c_ld);
    else
      product_rest<trans_a, add, V, M>(m - i, last - first, from, a_ld, b + first * b_ld, b_ld, c + i * c_ld,
                                       c_ld);
  }
}

// C[m, n] = op(A)[m, k] B[k, n] (+ C if add: the sum over k, from zero, is added to it), row-major, n a
// multiple of the vector; trans_a: A is stored [k, m]. in: the triangle that op(A) fills; out: the triangle
// of C that is wanted.
template <bool trans_a, bool add, class A>
void product(int64_t m, int64_t n, int64_t k, const A* a, int64_t a_ld, const A* b, int64_t b_ld, A* c,
             int64_t c_ld, Band in = Band::full, Band out = Band::full) {
  for (int64_t j = 0; j < n;) {
    const int64_t left = (n - j) / lanes<A>;
    const int64_t vectors = left == 4 ? 2 : std::min<int64_t>(left, 3);  // 4 = 2 + 2: no panel of one vector
    const int64_t first = out == Band::lower ? j : 0, next = j + vectors * lanes<A>;
    const int64_t last = out == Band::upper ? std::min(m, next) : m;
    if (vectors == 3)
      product_panel<trans_a, add, 3>(first, last, k, a, a_ld, b + j, b_ld, c + j, c_ld, in);
    else if (vectors == 2)
      product_panel<trans_a, add, 2>(first, last, k, a, a_ld, b + j, b_ld, c + j, c_ld, in);
    else
      product_panel<trans_a, add, 1>(first, last, k, a, a_ld, b + j, b_ld, c + j, c_ld, in);
    j = next;
  }
}

template <class A>
inline Vec<A> load_as(const A* x) {
  return load(x);
}
template <class A>
inline Vec<A> load_as(const bf16* x) {
  typedef uint16_t Half __attribute__((vector_size(vector_bytes / 2), aligned(2), may_alias));
  return __builtin_bit_cast(Vec<A>, __builtin_convertvector(*reinterpret_cast<const Half*>(x), Vec<uint32_t>)
                                        << 16);
}

// y[rows, padded(cols)] = scale x[rows, cols] in A, zeros in the padding; with pad_rows, rows up to
// padded(rows) too.
template <bool pad_rows, class A, class T>
void load_rows(int64_t rows, int64_t cols, const T* x, int64_t x_ld, A* y, A scale = 1) {
  const int64_t y_ld = padded<A>(cols), whole = cols / lanes<A> * lanes<A>;
  for (int64_t i = 0; i < rows; ++i, x += x_ld, y += y_ld) {
    for (int64_t j = 0; j < whole; j += lanes<A>) store(y + j, scale * load_as<A>(x + j));
    if (whole == cols) continue;
    for (int64_t j = whole; j < y_ld; ++j) y[j] = j < cols ? scale * static_cast<A>(x[j]) : 0;
  }
  if (pad_rows) std::fill(y, y + (padded<A>(rows) - rows) * y_ld, A(0));
}

// Swaps the off-diagonal step x step blocks of a lanes x lanes block held one row a register.
template <int step, class A, int... c>
[[gnu::always_inline]] inline void swap_blocks(Vec<A>* row, std::integer_sequence<int, c...>) {
  using Mask = Vec<std::conditional_t<sizeof(A) == 4, int32_t, int64_t>>;
  constexpr int n = lanes<A>;
  constexpr Mask low{(c & step ? n + c - step : c)...}, high{(c & step ? n + c : c + step)...};
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) {
    if (i & step) continue;
    const Vec<A> a = row[i], b = row[i + step];
    row[i] = __builtin_shuffle(a, b, low);
    row[i + step] = __builtin_shuffle(a, b, high);
  }
}

// A block of lanes x lanes, one row a register, transposed in place.
template <class A>
[[gnu::always_inline]] inline void transpose(Vec<A>* row) {
  constexpr int n = lanes<A>;
  constexpr std::make_integer_sequence<int, n> lane;
  if constexpr (n > 8) swap_blocks<8, A>(row, lane);
  if constexpr (n > 4) swap_blocks<4, A>(row, lane);
  if constexpr (n > 2) swap_blocks<2, A>(row, lane);
  swap_blocks<1, A>(row, lane);
}

// y[cols, rows] = x[rows, cols] transposed; both sizes whole vectors.
template <class A>
void transpose(int64_t rows, int64_t cols, const A* x, int64_t x_ld, A* y, int64_t y_ld) {
  constexpr int n = lanes<A>;
  for (int64_t i = 0; i < rows; i += n)
    for (int64_t j = 0; j < cols; j += n) {
      Vec<A> row[n];
#pragma GCC unroll 16
      for (int r = 0; r < n; ++r) row[r] = load(x + (i + r) * x_ld + j);
      transpose<A>(row);
#pragma GCC unroll 16
      for (int r = 0; r < n; ++r) store(y + (j + r) * y_ld + i, row[r]);
    }
}

}  // namespace mimo::tile
