#include "kernels/adamw.h"

#include <cmath>

#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

// What one step multiplies with, in double, then rounded once to the type of the master weights.
template <class A>
struct Factors {
  A scale, b1, b2, one_minus_b1, one_minus_b2, m_hat, v_hat, eps, lr, decay;
  Factors(const AdamState& s, double lr_factor, double decay_factor)
      : scale(A(s.scale)),
        b1(A(s.beta1)),
        b2(A(s.beta2)),
        one_minus_b1(A(1 - s.beta1)),
        one_minus_b2(A(1 - s.beta2)),
        m_hat(A(1 / (1 - std::pow(s.beta1, double(s.t))))),
        v_hat(A(1 / (1 - std::pow(s.beta2, double(s.t))))),
        eps(A(s.eps)),
        lr(A(s.lr * lr_factor)),
        decay(A(s.weight_decay * decay_factor)) {}
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
#pragma omp parallel if (7 * op.total * int64_t{sizeof(acc_t <T>)} > kThreadBytes)
  for (int i = 0; i < op.tensors; ++i) {
    const AdamTensor<T> a = op.tensor[i];
    const Factors<acc_t<T>> f(*op.state, a.lr, a.decay);
#pragma omp for schedule(static) nowait
    for (int64_t begin = 0; begin < a.n; begin += kSpan) update(a, f, begin, std::min(a.n, begin + kSpan));
  }
}

MIMO_CPU_KERNEL(AdamW);

}  // namespace mimo
