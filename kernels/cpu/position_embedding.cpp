#include "kernels/position_embedding.h"

#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

// Where a row (or column) of an m-long axis lies between two of the table's.
template <class A>
struct Source {
  int64_t low, high;
  A low_weight, high_weight;
  Source(int64_t i, int64_t m, int64_t grid) {
    const double at = std::max((double(i) + 0.5) * double(grid) / double(m) - 0.5, 0.0);
    low = std::min(static_cast<int64_t>(at), grid - 1);
    high = std::min(low + 1, grid - 1);
    high_weight = A(at - double(low));
    low_weight = A(1) - high_weight;
  }
};

}  // namespace

template <class T>
void run(const Cpu&, const PositionEmbedding<T>& op) {
  using A = acc_t<T>;
  const int64_t rows = op.rows, g = op.in.grid, cols = op.in.cols;
  parallel_for(rows, 3 * rows * cols * int64_t{sizeof(T)}, [&](int64_t row) {
    const int i = image_of(row, op.in.cu, op.in.images);
    const int64_t h = op.in.sizes[2 * i], w = op.in.sizes[2 * i + 1], m = std::max(h, w),
                  at = row - op.in.cu[i];
    const Source<A> y(at / w, m, g), x(at % w, m, g);
    const T *t00 = op.table + (y.low * g + x.low) * cols, *t01 = op.table + (y.low * g + x.high) * cols;
    const T *t10 = op.table + (y.high * g + x.low) * cols, *t11 = op.table + (y.high * g + x.high) * cols;
    const T* in = op.x ? op.x[row] : nullptr;
    T* out = op.out[row];
    const auto value = [&](int64_t c) {
      return y.low_weight * (x.low_weight * A(t00[c]) + x.high_weight * A(t01[c])) +
             y.high_weight * (x.low_weight * A(t10[c]) + x.high_weight * A(t11[c]));
    };
    if (in) {
#pragma omp simd
      for (int64_t c = 0; c < cols; ++c) out[c] = A(in[c]) + value(c);
    } else {
#pragma omp simd
      for (int64_t c = 0; c < cols; ++c) out[c] = value(c);
    }
  });
}

// A thread owns rows of the table and walks all images for each: no two threads add to one element.
template <class T>
void run(const Cpu&, const PositionEmbeddingBackward<T>& op) {
  using A = acc_t<T>;
  if (op.in.images == 0) return;
  const int64_t g = op.in.grid, cols = op.in.cols;
  parallel_for(g, op.in.cu[op.in.images] * cols * int64_t{sizeof(T)}, [&](int64_t table_row) {
    const auto add = [&](int64_t table_col, A weight, const T* dout) {
      A* d = op.dtable + (table_row * g + table_col) * cols;
#pragma omp simd
      for (int64_t c = 0; c < cols; ++c) d[c] += weight * A(dout[c]);
    };
    for (int i = 0; i < op.in.images; ++i) {
      const int64_t h = op.in.sizes[2 * i], w = op.in.sizes[2 * i + 1], m = std::max(h, w);
      for (int64_t py = 0; py < h; ++py) {
        const Source<A> y(py, m, g);
        const A wy =
            (y.low == table_row ? y.low_weight : A(0)) + (y.high == table_row ? y.high_weight : A(0));
        if (wy == 0) continue;
        for (int64_t px = 0; px < w; ++px) {
          const Source<A> x(px, m, g);
          const T* dout = op.dout[op.in.cu[i] + py * w + px];
          if (x.low_weight != 0) add(x.low, wy * x.low_weight, dout);
          if (x.high_weight != 0) add(x.high, wy * x.high_weight, dout);
        }
      }
    }
  });
}

MIMO_CPU_KERNEL(PositionEmbedding);
MIMO_CPU_KERNEL(PositionEmbeddingBackward);

}  // namespace mimo
