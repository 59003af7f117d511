// How the CPU kernels use threads: small work stays on one, and no result depends on how many there are.
#pragma once
#include <algorithm>

#include "kernels/kernel.h"

namespace mimo {

// Work that moves fewer bytes than this stays on one thread: waking the others costs more.
constexpr int64_t kThreadBytes = 128 << 10;

// Cuts n items into the blocks of a two-stage sum: first within each block, then over blocks in order. The
// cut is a function of n alone, and so are the bits of the sum.
struct Blocks {
  int64_t n, size, count;
  explicit Blocks(int64_t items, int64_t min_size = 32, int64_t max_count = 64)
      : n(items),
        size(std::max(min_size, (items + max_count - 1) / max_count)),
        count((items + size - 1) / size) {}
  int64_t begin(int64_t i) const { return i * size; }
  int64_t end(int64_t i) const { return std::min(n, (i + 1) * size); }
};

// Second stage over columns: y[c] += sum over blocks b, in order, of partial[b * ld + c].
template <class A>
void add_partial_sums(int64_t blocks, int64_t cols, const A* partial, int64_t ld, A* y) {
  constexpr int64_t kCols = 256;
#pragma omp parallel for schedule(static) if (blocks * cols * int64_t{sizeof(A)} > kThreadBytes)
  for (int64_t begin = 0; begin < cols; begin += kCols) {
    const int64_t n = std::min(kCols, cols - begin);
    A sum[kCols] = {};
    for (int64_t b = 0; b < blocks; ++b) {
      const A* p = partial + b * ld + begin;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) sum[c] += p[c];
    }
#pragma omp simd
    for (int64_t c = 0; c < n; ++c) y[begin + c] += sum[c];
  }
}

// Calls f(row, begin, end) on spans of columns that cover [rows, cols]. Rows that lie end to end in every
// operand (dense) are cut as one long row. bytes: what the whole call moves.
template <class F>
void for_each_span(int64_t rows, int64_t cols, bool dense, int64_t bytes, F&& f) {
  constexpr int64_t kSpan = 8192;
  if (rows == 0 || cols == 0) return;
  if (dense) cols *= rows, rows = 1;
  const int64_t spans = (cols + kSpan - 1) / kSpan;
#pragma omp parallel for schedule(static) if (bytes > kThreadBytes)
  for (int64_t i = 0; i < rows * spans; ++i) {
    const int64_t row = i / spans, begin = (i - row * spans) * kSpan;
    f(row, begin, std::min(cols, begin + kSpan));
  }
}

// Asks for x[0..n) ahead of a long loop over what lies before it: between long computations the hardware
// alone keeps too few lines in flight.
template <class T>
void prefetch(const T* x, int64_t n) {
  for (int64_t i = 0; i < n; i += 64 / int64_t{sizeof(T)}) __builtin_prefetch(x + i, 0, 2);
}

// Which image a packed row belongs to, by its first rows cu[0..images]; scale: rows of cu per row here.
inline int image_of(int64_t row, const int32_t* cu, int images, int64_t scale = 1) {
  return static_cast<int>(std::upper_bound(cu, cu + images + 1, row * scale) - cu) - 1;
}

}  // namespace mimo
