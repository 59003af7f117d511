#include "kernels/gated_norm.h"

#include "kernels/cpu/long_sum.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

template <class T>
void check(const GatedNormInputs<T>& in) {
  if (in.groups < 1 || in.cols % in.groups)
    throw std::invalid_argument("gated_norm: groups: expected a divisor of " + std::to_string(in.cols) +
                                ", found " + std::to_string(in.groups));
}

template <class T>
acc_t<T> forward_group(int n, const T* y, const T* z, const T* w, acc_t<T> eps, T* out) {
  using A = acc_t<T>;
  const double sum = long_sum<A>(n, [=]<class B>(int64_t c) {
    const B u = B(y[c]) * (B(z[c]) * sigmoid(B(z[c])));
    return u * u;
  });
  const A r = inverse_root<A>(sum / n + double(eps));
#pragma omp simd
  for (int c = 0; c < n; ++c) out[c] = A(w[c]) * (A(y[c]) * r * (A(z[c]) * sigmoid(A(z[c]))));
  return r;
}

// dw is this block's partial sum, or null.
template <class T>
void backward_group(int n, const T* y, const T* z, const T* w, acc_t<T> r, const T* dout, T* dy, T* dz,
                    acc_t<T>* dw) {
  using A = acc_t<T>;
  const double sum = long_sum<A>(
      n, [=]<class B>(int64_t c) { return B(y[c]) * B(z[c]) * sigmoid(B(z[c])) * B(w[c]) * B(dout[c]); });
  const A mean = A(sum * double(r) / n);
  if (dw) {
#pragma omp simd
    for (int c = 0; c < n; ++c) dw[c] += A(dout[c]) * (A(y[c]) * r * (A(z[c]) * sigmoid(A(z[c]))));
  }
#pragma omp simd
  for (int c = 0; c < n; ++c) {
    const A yc = y[c], zc = z[c], s = sigmoid(zc), silu = zc * s;
    const A du = r * (A(w[c]) * A(dout[c]) - yc * r * silu * mean);
    dy[c] = du * silu;
    dz[c] = du * yc * (s * (1 + zc * (1 - s)));
  }
}

}  // namespace

template <class T>
void run(const Cpu&, const GatedNorm<T>& op) {
  check(op.in);
  const int n = op.in.cols / op.in.groups;
  parallel_for(op.in.rows, op.in.rows * op.in.cols * int64_t{3 * sizeof(T)}, [&](int64_t i) {
    for (int g = 0; g < op.in.groups; ++g) {
      const int at = g * n;
      const auto r = forward_group(n, op.in.y[i] + at, op.in.z[i] + at, op.in.w + at, op.eps, op.out[i] + at);
      if (op.r) op.r[i * op.in.groups + g] = r;
    }
  });
}

template <class T>
int64_t workspace(const Cpu&, const GatedNormBackward<T>& op) {
  return op.dw ? Blocks(op.in.rows).count * op.in.cols * int64_t{sizeof(acc_t<T>)} : 0;
}

template <class T>
void run(const Cpu& cpu, const GatedNormBackward<T>& op) {
  using A = acc_t<T>;
  check(op.in);
  const int n = op.in.cols / op.in.groups;
  const Blocks blocks(op.in.rows);
  A* partial = op.dw ? static_cast<A*>(cpu.ws.data) : nullptr;
  parallel_for(blocks.count, op.in.rows * op.in.cols * int64_t{5 * sizeof(T)}, [&](int64_t b) {
    A* dw = partial ? partial + b * op.in.cols : nullptr;
    if (dw) std::fill_n(dw, op.in.cols, A(0));
    for (int64_t i = blocks.begin(b); i < blocks.end(b); ++i)
      for (int g = 0; g < op.in.groups; ++g) {
        const int at = g * n;
        backward_group(n, op.in.y[i] + at, op.in.z[i] + at, op.in.w + at, op.r[i * op.in.groups + g],
                       op.dout[i] + at, op.dy[i] + at, op.dz[i] + at, dw ? dw + at : nullptr);
      }
  });
  if (partial) add_partial_sums(blocks.count, op.in.cols, partial, op.in.cols, op.dw);
}

MIMO_CPU_KERNEL(GatedNorm);
MIMO_CPU_KERNEL(GatedNormBackward);
MIMO_CPU_WORKSPACE(GatedNormBackward);

}  // namespace mimo
