#include "kernels/rms_norm.h"

#include "kernels/cpu/long_sum.h"
#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

template <class T>
double mean_square(const T* x, int cols) {
  return long_sum<acc_t<T>>(cols, [=]<class B>(int64_t c) { return B(x[c]) * B(x[c]); }) * (1.0 / cols);
}

// One row of the backward; dw is this block's partial sum, or null.
template <class T>
void backward_row(int cols, const T* x, const T* w, const T* dy, acc_t<T> r, T* dx, acc_t<T>* dw) {
  using A = acc_t<T>;
  const double sum = long_sum<A>(cols, [=]<class B>(int64_t c) { return B(x[c]) * B(w[c]) * B(dy[c]); });
  const A mean = A(sum * double(r) / cols);
#pragma omp simd
  for (int c = 0; c < cols; ++c) dx[c] = r * (A(w[c]) * A(dy[c]) - A(x[c]) * r * mean);
  if (!dw) return;
#pragma omp simd
  for (int c = 0; c < cols; ++c) dw[c] += A(dy[c]) * (A(x[c]) * r);
}

}  // namespace

template <class T>
void run(const Cpu&, const RmsNorm<T>& op) {
  using A = acc_t<T>;
  parallel_for(op.in.rows, op.in.rows * op.in.cols * int64_t{2 * sizeof(T)}, [&](int64_t i) {
    const T *x = op.in.x[i], *w = op.in.w;
    T* y = op.y[i];
    const A r = inverse_root<A>(mean_square(x, op.in.cols) + double(op.eps));
#pragma omp simd
    for (int c = 0; c < op.in.cols; ++c) y[c] = A(w[c]) * (A(x[c]) * r);
    if (op.r) op.r[i] = r;
  });
}

template <class T>
int64_t workspace(const Cpu&, const RmsNormBackward<T>& op) {
  return op.dw ? Blocks(op.in.rows).count * op.in.cols * int64_t{sizeof(acc_t<T>)} : 0;
}

template <class T>
void run(const Cpu& cpu, const RmsNormBackward<T>& op) {
  using A = acc_t<T>;
  const Blocks blocks(op.in.rows);
  A* partial = op.dw ? static_cast<A*>(cpu.ws.data) : nullptr;
  parallel_for(blocks.count, op.in.rows * op.in.cols * int64_t{3 * sizeof(T)}, [&](int64_t b) {
    A* dw = partial ? partial + b * op.in.cols : nullptr;
    if (dw) std::fill_n(dw, op.in.cols, A(0));
    for (int64_t i = blocks.begin(b); i < blocks.end(b); ++i)
      backward_row(op.in.cols, op.in.x[i], op.in.w, op.dy[i], op.r[i], op.dx[i], dw);
  });
  if (partial) add_partial_sums(blocks.count, op.in.cols, partial, op.in.cols, op.dw);
}

MIMO_CPU_KERNEL(RmsNorm);
MIMO_CPU_KERNEL(RmsNormBackward);
MIMO_CPU_WORKSPACE(RmsNormBackward);

}  // namespace mimo
