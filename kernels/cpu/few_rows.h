// Products of a few rows with a matrix whose rows are the columns of op(B): each of its elements is read
// once, from memory where it is large, and used so few times that packing it would take longer than the
// product.
#pragma once
#include <algorithm>
#include <utility>

#include "kernels/cpu/tile.h"

namespace mimo::few_rows {

inline constexpr int64_t kMost = 4;

// The last n < lanes elements of a row, and zeros.
template <class A, class T>
Vec<A> load_end(const T* x, int64_t n) {
  Vec<A> y{};
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<A>(x[i]);
  return y;
}

// y[M, lanes / M]: the products of `rows` <= M rows of A with `cols` <= lanes / M rows of B, k long; the rest
// of y is unspecified. A product sums each lane in order of k, then the lanes.
template <int M, class A, class T>
void products(int64_t rows, int64_t cols, int64_t k, const T* a, int64_t a_ld, const T* b, int64_t b_ld,
              A* y) {
  constexpr int N = lanes<A> / M;
  static_assert(N > 0);
  Vec<A> sum[M * N] = {};
  const T *row[M], *col[N];
  for (int i = 0; i < M; ++i) row[i] = a + std::min<int64_t>(i, rows - 1) * a_ld;
  for (int j = 0; j < N; ++j) col[j] = b + std::min<int64_t>(j, cols - 1) * b_ld;
  const int64_t whole = k / lanes<A> * lanes<A>;
  const auto add = [&](auto&& load_from, int64_t p) {
    Vec<A> x[M];
    for (int i = 0; i < M; ++i) x[i] = load_from(row[i] + p);
#pragma GCC unroll 16
    for (int j = 0; j < N; ++j) {
      const Vec<A> w = load_from(col[j] + p);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) sum[i * N + j] += x[i] * w;
    }
  };
  for (int64_t p = 0; p < whole; p += lanes<A>) add([](const T* x) { return tile::load_as<A>(x); }, p);
  if (whole < k) add([&](const T* x) { return load_end<A>(x, k - whole); }, whole);
  tile::transpose<A>(sum);
  for (int i = 1; i < lanes<A>; ++i) sum[0] += sum[i];
  store(y, sum[0]);
}

// c[m, n] = A B^T (+ c if add), m <= kMost, B stored [n, k].
template <class A, class T>
void multiply(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_ld, const T* b, int64_t b_ld, bool add,
              A* c, int64_t c_ld) {
  const auto all_columns = [&]<int M>(std::integral_constant<int, M>, int64_t i) {
    constexpr int64_t N = lanes<A> / M;
    const int64_t rows = std::min<int64_t>(M, m - i);
    A y[lanes<A>];
    for (int64_t j = 0; j < n; j += N) {
      const int64_t cols = std::min(N, n - j);
      products<M>(rows, cols, k, a + i * a_ld, a_ld, b + j * b_ld, b_ld, y);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t q = 0; q < cols; ++q) {
          A& x = c[(i + r) * c_ld + j + q];
          x = y[r * N + q] + (add ? x : 0);
        }
    }
  };
  constexpr int most = std::min(4, lanes<A>);
  for (int64_t i = 0; i < m; i += most)
    if (m - i == 1)
      all_columns(std::integral_constant<int, 1>(), i);
    else if (m - i == 2)
      all_columns(std::integral_constant<int, 2>(), i);
    else
      all_columns(std::integral_constant<int, most>(), i);
}

}  // namespace mimo::few_rows
