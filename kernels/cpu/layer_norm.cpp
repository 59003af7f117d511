#include "kernels/layer_norm.h"

#include <cmath>

#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

template <class A>
struct Moments {
  A mean, rstd;
};

// Two passes: the variance of centred values does not cancel.
template <class T>
Moments<acc_t<T>> moments(const T* x, int cols, acc_t<T> eps) {
  using A = acc_t<T>;
  A sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
  for (int c = 0; c < cols; ++c) sum += A(x[c]);
  const A mean = sum / A(cols);
#pragma omp simd reduction(+ : squares)
  for (int c = 0; c < cols; ++c) squares += (A(x[c]) - mean) * (A(x[c]) - mean);
  return {mean, A(1) / std::sqrt(squares / A(cols) + eps)};
}

// One row of the backward; dw and db are this block's partial sums, or null.
template <class T>
void backward_row(int cols, const T* x, const T* w, const T* dy, Moments<acc_t<T>> m, T* dx, acc_t<T>* dw,
                  acc_t<T>* db) {
  using A = acc_t<T>;
  A sum_g = 0, sum_gx = 0;
#pragma omp simd reduction(+ : sum_g, sum_gx)
  for (int c = 0; c < cols; ++c) {
    const A g = A(w[c]) * A(dy[c]);
    sum_g += g;
    sum_gx += g * (A(x[c]) - m.mean);
  }
  const A mean_g = sum_g / A(cols), mean_gx = sum_gx * m.rstd / A(cols);
#pragma omp simd
  for (int c = 0; c < cols; ++c) {
    const A xhat = (A(x[c]) - m.mean) * m.rstd;
    dx[c] = m.rstd * (A(w[c]) * A(dy[c]) - mean_g - xhat * mean_gx);
  }
  if (!dw) return;
#pragma omp simd
  for (int c = 0; c < cols; ++c) {
    dw[c] += A(dy[c]) * ((A(x[c]) - m.mean) * m.rstd);
    db[c] += A(dy[c]);
  }
}

}  // namespace

template <class T>
void run(const Cpu&, const LayerNorm<T>& op) {
  using A = acc_t<T>;
#pragma omp parallel for schedule(static) if (op.rows * op.cols * int64_t{2 * sizeof(T)} > kThreadBytes)
  for (int64_t i = 0; i < op.rows; ++i) {
    const T *x = op.x + i * op.x_ld, *w = op.w, *b = op.b;
    T* y = op.y + i * op.y_ld;
    const auto m = moments(x, op.cols, op.eps);
#pragma omp simd
    for (int c = 0; c < op.cols; ++c) y[c] = A(w[c]) * ((A(x[c]) - m.mean) * m.rstd) + A(b[c]);
    if (op.mean) op.mean[i] = m.mean, op.rstd[i] = m.rstd;
  }
}

template <class T>
int64_t workspace(const Cpu&, const LayerNormBackward<T>& op) {
  return op.dw ? 2 * Blocks(op.rows).count * op.cols * int64_t{sizeof(acc_t<T>)} : 0;
}

template <class T>
void run(const Cpu& cpu, const LayerNormBackward<T>& op) {
  using A = acc_t<T>;
  const Blocks blocks(op.rows);
  const int64_t ld = 2 * op.cols;  // of a block's partial sums: dw, then db
  A* partial = op.dw ? static_cast<A*>(cpu.ws.data) : nullptr;
#pragma omp parallel for schedule(static) if (op.rows * op.cols * int64_t{3 * sizeof(T)} > kThreadBytes)
  for (int64_t b = 0; b < blocks.count; ++b) {
    A* dw = partial ? partial + b * ld : nullptr;
    if (dw) std::fill_n(dw, ld, A(0));
    for (int64_t i = blocks.begin(b); i < blocks.end(b); ++i)
      backward_row(op.cols, op.x + i * op.x_ld, op.w, op.dy + i * op.dy_ld, {op.mean[i], op.rstd[i]},
                   op.dx + i * op.dx_ld, dw, dw + op.cols);
  }
  if (!partial) return;
  add_partial_sums(blocks.count, op.cols, partial, ld, op.dw);
  add_partial_sums(blocks.count, op.cols, partial + op.cols, ld, op.db);
}

MIMO_CPU_KERNEL(LayerNorm);
MIMO_CPU_KERNEL(LayerNormBackward);
MIMO_CPU_WORKSPACE(LayerNormBackward);

}  // namespace mimo
