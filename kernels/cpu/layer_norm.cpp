#include "kernels/layer_norm.h"

#include "kernels/cpu/long_sum.h"
#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

// A row about its mean. Centred values are halved, which is exact: x - mean may leave the range of A.
template <class T>
struct Row {
  using A = acc_t<T>;
  const T* x;
  A half_mean, twice_rstd, shift = 0;  // shift: (mean - 2 half_mean) rstd
  A xhat(int64_t c) const { return (A(x[c]) * A(0.5) - half_mean) * twice_rstd - shift; }
};

template <class A>
struct Moments {
  double mean;
  A rstd;
};

// Two passes: the variance of centred values does not cancel. The second also sums these, since the mean,
// rounded to A, is not that of the row; where it is far above the deviation this counts.
template <class T>
Moments<acc_t<T>> moments(const T* x, int cols, acc_t<T> eps, acc_t<T>& half_mean) {
  using A = acc_t<T>;
  const double each = 1.0 / cols;
  half_mean = A(0.5 * each * long_sum<A>(cols, [=]<class B>(int64_t c) { return B(x[c]); }));
  const Pair<double> sum = long_sums<A>(cols, [x, at = half_mean]<class B>(int64_t c) {
    const B half = B(x[c]) * B(0.5) - B(at);
    return Pair<B>{half, half * half};
  });
  const double rest = sum.first * each, variance = 4 * (sum.second * each - rest * rest);
  return {2 * (double(half_mean) + rest), inverse_root<A>(variance + double(eps))};
}

// One row of the backward; dw and db are this block's partial sums, each or null.
template <class T>
void backward_row(int cols, Row<T> row, const T* w, const T* dy, acc_t<T> rstd, T* dx, acc_t<T>* dw,
                  acc_t<T>* db) {
  using A = acc_t<T>;
  const Pair<double> sum =
      long_sums<A>(cols, [w, dy, x = row.x, half_mean = row.half_mean]<class B>(int64_t c) {
        const B g = B(w[c]) * B(dy[c]);
        return Pair<B>{g, g * (B(x[c]) * B(0.5) - B(half_mean))};
      });
  const A mean_g = A(sum.first / cols), mean_gx = A(sum.second * double(row.twice_rstd) / cols);
#pragma omp simd
  for (int c = 0; c < cols; ++c) dx[c] = rstd * (A(w[c]) * A(dy[c]) - mean_g - row.xhat(c) * mean_gx);
  if (dw)
#pragma omp simd
    for (int c = 0; c < cols; ++c) dw[c] += A(dy[c]) * row.xhat(c);
  if (db)
#pragma omp simd
    for (int c = 0; c < cols; ++c) db[c] += A(dy[c]);
}

}  // namespace

template <class T>
void run(const Cpu&, const LayerNorm<T>& op) {
  using A = acc_t<T>;
  parallel_for(op.in.rows, op.in.rows * op.in.cols * int64_t{2 * sizeof(T)}, [&](int64_t i) {
    const T *x = op.in.x[i], *w = op.in.w, *b = op.b;
    T* y = op.y[i];
    A half_mean;
    const Moments<A> m = moments(x, op.in.cols, op.eps, half_mean);
    const Row<T> row{x, half_mean, 2 * m.rstd, A(m.mean - 2 * double(half_mean)) * m.rstd};
#pragma omp simd
    for (int c = 0; c < op.in.cols; ++c) y[c] = A(w[c]) * row.xhat(c) + A(b[c]);
    if (op.mean) op.mean[i] = A(m.mean), op.rstd[i] = m.rstd;
  });
}

template <class T>
int64_t workspace(const Cpu&, const LayerNormBackward<T>& op) {
  return op.dw || op.db ? 2 * Blocks(op.in.rows).count * op.in.cols * int64_t{sizeof(acc_t<T>)} : 0;
}

template <class T>
void run(const Cpu& cpu, const LayerNormBackward<T>& op) {
  using A = acc_t<T>;
  const Blocks blocks(op.in.rows);
  const int64_t ld = 2 * op.in.cols;  // of a block's partial sums: dw, then db
  A* partial = static_cast<A*>(cpu.ws.data);
  parallel_for(blocks.count, op.in.rows * op.in.cols * int64_t{3 * sizeof(T)}, [&](int64_t b) {
    A *dw = op.dw ? partial + b * ld : nullptr, *db = op.db ? partial + b * ld + op.in.cols : nullptr;
    if (dw) std::fill_n(dw, op.in.cols, A(0));
    if (db) std::fill_n(db, op.in.cols, A(0));
    for (int64_t i = blocks.begin(b); i < blocks.end(b); ++i)
      backward_row<T>(op.in.cols, {op.in.x[i], op.mean[i] / 2, op.rstd[i] * 2}, op.in.w, op.dy[i], op.rstd[i],
                      op.dx[i], dw, db);
  });
  if (op.dw) add_partial_sums(blocks.count, op.in.cols, partial, ld, op.dw);
  if (op.db) add_partial_sums(blocks.count, op.in.cols, partial + op.in.cols, ld, op.db);
}

MIMO_CPU_KERNEL(LayerNorm);
MIMO_CPU_KERNEL(LayerNormBackward);
MIMO_CPU_WORKSPACE(LayerNormBackward);

}  // namespace mimo
