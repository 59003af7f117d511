#include "kernels/activation.h"

#include <cmath>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

constexpr double kSqrt2OverPi = 0.79788456080286535588, kCubic = 0.044715, kQuick = 1.702;

// Phi(x), the normal distribution's cumulative function, and its density phi(x).
template <class A>
struct Normal {
  A cumulative, density;
};

inline Normal<double> normal(double x) {
  return {0.5 * std::erfc(-x * 0.70710678118654752440), 0.39894228040143267794 * std::exp(-0.5 * x * x)};
}

// The tail Phi(-a) = exp(-a^2 / 2) t p(t), t = 1 / (1 + 0.3 a), p of degree 9 fitted by Chebyshev
// interpolation (relative error 1.2e-8), so that the far left of gelu keeps its relative accuracy, which 1 +
// erf loses.
inline Normal<float> normal(float x) {
  using A = float;
  const A a = std::fabs(x) > A(14) ? A(14) : std::fabs(x);
  const A t = A(1) / (A(1) + A(0.3) * a), square = a * a;
  const A e =
      fast_exp(A(-0.5) * square) * (A(1) - A(0.5) * __builtin_fmaf(a, a, -square));  // and a^2's rounding
  A p = A(-0.0208300398812);
  p = p * t + A(0.113590127668);
  p = p * t + A(-0.231002319341);
  p = p * t + A(0.195594931985);
  p = p * t + A(-0.0826592399291);
  p = p * t + A(0.0979221195606);
  p = p * t + A(0.0777729585745);
  p = p * t + A(0.110368034272);
  p = p * t + A(0.119555929568);
  p = p * t + A(0.119687495808);
  const A tail = e * (t * p);
  return {x < A(0) ? tail : A(1) - tail, A(0.39894228040143267794) * e};
}

// f: the value, df: the derivative.
struct Relu2 {  // the comparisons let NaN through
  template <class A>
  static A f(A x) {
    const A p = x < 0 ? A(0) : x;
    return p * p;
  }
  template <class A>
  static A df(A x) {
    return x < 0 ? A(0) : 2 * x;
  }
};
struct GeluErf {
  template <class A>
  static A f(A x) {
    return x * normal(x).cumulative;
  }
  template <class A>
  static A df(A x) {
    const Normal<A> n = normal(x);
    return n.cumulative + x * n.density;
  }
};
struct GeluTanh {
  static constexpr double kTwice = 2 * kSqrt2OverPi;
  template <class A>
  static A f(A x) {
    return x * sigmoid(A(kTwice) * x * (A(1) + A(kCubic) * x * x));
  }
  // Factors of x^2 come last and one by one: where it overflows, s (1 - s) is 0.
  template <class A>
  static A df(A x) {
    const A s = sigmoid(A(kTwice) * x * (A(1) + A(kCubic) * x * x)), t = x * s * (A(1) - s);
    return s + A(kTwice) * (t + A(3 * kCubic) * (t * x) * x);
  }
};
struct QuickGelu {
  template <class A>
  static A f(A x) {
    return x * sigmoid(A(kQuick) * x);
  }
  template <class A>
  static A df(A x) {
    const A s = sigmoid(A(kQuick) * x);
    return s + x * s * (A(1) - s) * A(kQuick);
  }
};
struct Silu {
  template <class A>
  static A f(A x) {
    return x * sigmoid(x);
  }
  template <class A>
  static A df(A x) {
    const A s = sigmoid(x);
    return s * (A(1) + x * (A(1) - s));
  }
};

template <class F>
void with_kind(ActivationKind kind, F&& f) {
  switch (kind) {
    case ActivationKind::relu2:
      return f(Relu2{});
    case ActivationKind::gelu_erf:
      return f(GeluErf{});
    case ActivationKind::gelu_tanh:
      return f(GeluTanh{});
    case ActivationKind::quick_gelu:
      return f(QuickGelu{});
    case ActivationKind::silu:
      return f(Silu{});
  }
}

}  // namespace

template <class T>
void run(const Cpu&, const Activation<T>& op) {
  using A = acc_t<T>;
  const bool dense = op.in.x.ld == op.in.cols && op.y.ld == op.in.cols;
  with_kind(op.in.kind, [&](auto kind) {
    for_each_span(op.in.rows, op.in.cols, dense, 2 * op.in.rows * op.in.cols * int64_t{sizeof(T)},
                  [&](int64_t row, int64_t begin, int64_t end) {
                    const T* x = op.in.x[row];
                    T* y = op.y[row];
#pragma omp simd
                    for (int64_t c = begin; c < end; ++c) y[c] = kind.f(A(x[c]));
                  });
  });
}

template <class T>
void run(const Cpu&, const ActivationBackward<T>& op) {
  using A = acc_t<T>;
  const bool dense = op.in.x.ld == op.in.cols && op.dy.ld == op.in.cols && op.dx.ld == op.in.cols;
  with_kind(op.in.kind, [&](auto kind) {
    for_each_span(op.in.rows, op.in.cols, dense, 3 * op.in.rows * op.in.cols * int64_t{sizeof(T)},
                  [&](int64_t row, int64_t begin, int64_t end) {
                    const T *x = op.in.x[row], *dy = op.dy[row];
                    T* dx = op.dx[row];
#pragma omp simd
                    for (int64_t c = begin; c < end; ++c) dx[c] = A(dy[c]) * kind.df(A(x[c]));
                  });
  });
}

template <class T>
void run(const Cpu&, const SwiGlu<T>& op) {
  using A = acc_t<T>;
  for_each_span(op.in.rows, op.in.cols, false, 3 * op.in.rows * op.in.cols * int64_t{sizeof(T)},
                [&](int64_t row, int64_t begin, int64_t end) {
                  const T *gate = op.in.x[row], *up = gate + op.in.cols;
                  T* y = op.y[row];
#pragma omp simd
                  for (int64_t c = begin; c < end; ++c) y[c] = Silu::f(A(gate[c])) * A(up[c]);
                });
}

template <class T>
void run(const Cpu&, const SwiGluBackward<T>& op) {
  using A = acc_t<T>;
  for_each_span(op.in.rows, op.in.cols, false, 5 * op.in.rows * op.in.cols * int64_t{sizeof(T)},
                [&](int64_t row, int64_t begin, int64_t end) {
                  const T *gate = op.in.x[row], *up = gate + op.in.cols, *dy = op.dy[row];
                  T *dgate = op.dx[row], *dup = dgate + op.in.cols;
#pragma omp simd
                  for (int64_t c = begin; c < end; ++c) {
                    const A g = A(gate[c]), s = sigmoid(g), ds = A(dy[c]) * s;
                    dgate[c] = ds * A(up[c]) * (A(1) + g * (A(1) - s));
                    dup[c] = ds * g;
                  }
                });
}

MIMO_CPU_KERNEL(Activation);
MIMO_CPU_KERNEL(ActivationBackward);
MIMO_CPU_KERNEL(SwiGlu);
MIMO_CPU_KERNEL(SwiGluBackward);

}  // namespace mimo
