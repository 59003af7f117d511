#include "kernels/adamw.h"

#include <cmath>

#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

// What one step multiplies with, in double, then rounded once to the type of the master weights.
template <class A>
struct Factors {
  A scale, b1, b2, one_minus_b1, one_minus_b2, m_hat, v_hat, eps;
  A lr = 0, decay = 0;  // of one tensor
  explicit Factors(const AdamState& s)
      : scale(A(s.scale)),
        b1(A(s.beta1)),
        b2(A(s.beta2)),
        one_minus_b1(A(1 - s.beta1)),
        one_minus_b2(A(1 - s.beta2)),
        m_hat(A(1 / (1 - std::pow(s.beta1, double(s.t))))),
        v_hat(A(1 / (1 - std::pow(s.beta2, double(s.t))))),
        eps(A(s.eps)) {}
};

template <class T>
void update(const AdamTensor<T>& a, const Factors<acc_t<T>>& f, int64_t begin, int64_t end) {
  using A = acc_t<T>;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const A g = a.grad[i] * f.scale;
    const A m = f.b1 * a.m[i] + f.one_minus_b1 * g;
    const A v = f.b2 * a.v[i] + f.one_minus_b2 * g * g;
    const A p = a.master[i];
    a.m[i] = m;
    a.v[i] = v;
    a.master[i] = p - f.lr * (m * f.m_hat / (std::sqrt(v * f.v_hat) + f.eps) + f.decay * p);
  }
  if (static_cast<void*>(a.param) == static_cast<void*>(a.master)) return;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) a.param[i] = a.master[i];
}

}  // namespace

template <class T>
void run(const Cpu&, const AdamW<T>& op) {
  constexpr int64_t kSpan = 4096;
  const Factors<acc_t<T>> shared(*op.state);
  for_each_span_of(
      op.tensors, [&](int i) { return op.tensor[i].n; }, kSpan, 7 * op.total * int64_t{sizeof(acc_t<T>)},
      [&](int i, int64_t begin, int64_t end, int64_t) {
        const AdamTensor<T> a = op.tensor[i];
        Factors<acc_t<T>> f = shared;
        f.lr = acc_t<T>(op.state->lr * a.lr), f.decay = acc_t<T>(op.state->weight_decay * a.decay);
        update(a, f, begin, end);
      });
}

MIMO_CPU_KERNEL(AdamW);

}  // namespace mimo
