// Activations, by map.cuh, one kernel a kind.
//
// Limit: bytes; but at 2 bytes an element an SM of 128 lanes has only some 24 instructions for each, so bf16
// takes the special function unit's exponential and division (math.cuh) and a shorter polynomial for
// gelu_erf. Not measured.
#include "kernels/activation.h"

#include "kernels/cuda/map.cuh"
#include "kernels/cuda/math.cuh"

namespace mimo {
namespace cuda {

// Phi(x), the normal distribution's cumulative function, and its density phi(x).
struct NormalOf {
  float cumulative, density;
};

// The tail Phi(-a) = exp(-a^2 / 2) t p(t), t = 1 / (1 + k a), p fitted by Chebyshev interpolation, so that
// the far left of gelu keeps its relative accuracy, which 1 + erf loses. Relative error: 1.2e-8 for float
// (the CPU's polynomial), 5e-5 for bf16.
template <class T>
__device__ inline NormalOf normal_for(float x) {
  const float a = fminf(fabsf(x), 16.f), square = a * a;
  float e, p, t;
  if constexpr (sizeof(T) == 2) {
    t = divide_for<T>(1, 1 + 0.25f * a);
    e = exp_for<T>(-0.5f * square);
    p = 0.2406945558f;
    p = p * t - 0.1016960113f;
    p = p * t + 0.1785266482f;
    p = p * t + 0.08118380613f;
    p = p * t + 0.1012658151f;
  } else {
    t = divide_for<T>(1, 1 + 0.3f * a);
    e = exp_for<T>(-0.5f * square) * (1 - 0.5f * fmaf(a, a, -square));  // and a^2's rounding
    p = -0.0208300398812f;
    p = p * t + 0.113590127668f;
    p = p * t - 0.231002319341f;
    p = p * t + 0.195594931985f;
    p = p * t - 0.0826592399291f;
    p = p * t + 0.0979221195606f;
    p = p * t + 0.0777729585745f;
    p = p * t + 0.110368034272f;
    p = p * t + 0.119555929568f;
    p = p * t + 0.119687495808f;
  }
  const float tail = e * (t * p);
  return {x < 0 ? tail : 1 - tail, 0.39894228040143267794f * e};
}

// f: the value, df: the derivative, of x that is stored as T.
struct Relu2 {  // the comparisons let NaN through
  template <class T>
  static __device__ float f(float x) {
    const float p = x < 0 ? 0 : x;
    return p * p;
  }
  template <class T>
  static __device__ float df(float x) {
    return x < 0 ? 0 : 2 * x;
  }
};
struct GeluErf {
  template <class T>
  static __device__ float f(float x) {
    return x * normal_for<T>(x).cumulative;
  }
  template <class T>
  static __device__ float df(float x) {
    const NormalOf n = normal_for<T>(x);
    return n.cumulative + x * n.density;
  }
};
struct GeluTanh {  // x (1 + tanh(u)) / 2 = x sigmoid(2 u)
  static constexpr float kTwice = 1.59576912160573071176f, kCubic = 0.044715f;  // 2 sqrt(2 / pi)
  template <class T>
  static __device__ float f(float x) {
    return x * sigmoid_for<T>(kTwice * x * (1 + kCubic * x * x));
  }
  template <class T>
  static __device__ float df(float x) {
    // Factors of x^2 come last and one by one: where it overflows, s (1 - s) is 0.
    const float s = sigmoid_for<T>(kTwice * x * (1 + kCubic * x * x)), t = x * s * (1 - s);
    return s + kTwice * (t + 3 * kCubic * (t * x) * x);
  }
};
struct QuickGelu {
  static constexpr float kQuick = 1.702f;
  template <class T>
  static __device__ float f(float x) {
    return x * sigmoid_for<T>(kQuick * x);
  }
  template <class T>
  static __device__ float df(float x) {
    const float s = sigmoid_for<T>(kQuick * x);
    return s + x * s * (1 - s) * kQuick;
  }
};
struct Silu {
  template <class T>
  static __device__ float f(float x) {
    return x * sigmoid_for<T>(x);
  }
  template <class T>
  static __device__ float df(float x) {
    const float s = sigmoid_for<T>(x);
    return s * (1 + x * (1 - s));
  }
};

template <class T, class Kind>
struct ActivationMap {
  using Element = T;
  static constexpr int kInputs = 1;
  template <int N>
  using Held = float[N];
  Activation<T> op;
  template <int N>
  __device__ void load(float (&x)[N], const Piece& p) const {
    load_piece(x, op.in.x[p.row], p);
  }
  template <int N>
  __device__ void store(float (&x)[N], const Piece& p) const {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = Kind::template f<T>(x[i]);
    store_piece(op.y[p.row], x, p);
  }
};

template <class T, class Kind>
struct ActivationBackwardMap {
  using Element = T;
  static constexpr int kInputs = 2;  // x, dy
  template <int N>
  using Held = float[2][N];
  ActivationBackward<T> op;
  template <int N>
  __device__ void load(float (&x)[2][N], const Piece& p) const {
    load_piece(x[0], op.in.x[p.row], p);
    load_piece(x[1], op.dy[p.row], p);
  }
  template <int N>
  __device__ void store(float (&x)[2][N], const Piece& p) const {
#pragma unroll
    for (int i = 0; i < N; ++i) x[0][i] = x[1][i] * Kind::template df<T>(x[0][i]);
    store_piece(op.dx[p.row], x[0], p);
  }
};

template <class T>
struct SwiGluMap {
  using Element = T;
  static constexpr int kInputs = 2;  // gate, up
  template <int N>
  using Held = float[2][N];
  SwiGlu<T> op;
  template <int N>
  __device__ void load(float (&x)[2][N], const Piece& p) const {
    load_piece(x[0], op.in.x[p.row], p);
    load_piece(x[1], op.in.x[p.row] + op.in.cols, p);
  }
  template <int N>
  __device__ void store(float (&x)[2][N], const Piece& p) const {
#pragma unroll
    for (int i = 0; i < N; ++i) x[0][i] = Silu::f<T>(x[0][i]) * x[1][i];
    store_piece(op.y[p.row], x[0], p);
  }
};

template <class T>
struct SwiGluBackwardMap {
  using Element = T;
  static constexpr int kInputs = 3;  // gate, up, dy
  template <int N>
  using Held = float[3][N];
  SwiGluBackward<T> op;
  template <int N>
  __device__ void load(float (&x)[3][N], const Piece& p) const {
    load_piece(x[0], op.in.x[p.row], p);
    load_piece(x[1], op.in.x[p.row] + op.in.cols, p);
    load_piece(x[2], op.dy[p.row], p);
  }
  template <int N>
  __device__ void store(float (&x)[3][N], const Piece& p) const {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float g = x[0][i], s = sigmoid_for<T>(g), ds = x[2][i] * s;
      x[0][i] = ds * x[1][i] * (1 + g * (1 - s));
      x[1][i] = ds * g;
    }
    store_piece(op.dx[p.row], x[0], p);
    store_piece(op.dx[p.row] + op.in.cols, x[1], p);
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

}  // namespace cuda

template <class T>
void run(const Cuda& context, const Activation<T>& op) {
  using namespace cuda;
  with_kind(op.in.kind, [&](auto kind) {
    cuda::map(context, ActivationMap<T, decltype(kind)>{op}, op.in.rows, op.in.cols,
              op.in.x.ld == op.in.cols && op.y.ld == op.in.cols, aligned(op.in.x) && aligned(op.y));
  });
}

template <class T>
void run(const Cuda& context, const ActivationBackward<T>& op) {
  using namespace cuda;
  with_kind(op.in.kind, [&](auto kind) {
    cuda::map(context, ActivationBackwardMap<T, decltype(kind)>{op}, op.in.rows, op.in.cols,
              op.in.x.ld == op.in.cols && op.dy.ld == op.in.cols && op.dx.ld == op.in.cols,
              aligned(op.in.x) && aligned(op.dy) && aligned(op.dx));
  });
}

template <class T>
void run(const Cuda& context, const SwiGlu<T>& op) {
  using namespace cuda;
  cuda::map(context, SwiGluMap<T>{op}, op.in.rows, op.in.cols, false,
            aligned(op.in.x) && aligned(op.in.x.data, op.in.cols) && aligned(op.y));
}

template <class T>
void run(const Cuda& context, const SwiGluBackward<T>& op) {
  using namespace cuda;
  cuda::map(context, SwiGluBackwardMap<T>{op}, op.in.rows, op.in.cols, false,
            aligned(op.in.x) && aligned(op.in.x.data, op.in.cols) && aligned(op.dy) && aligned(op.dx));
}

MIMO_CUDA_KERNEL(Activation);
MIMO_CUDA_KERNEL(ActivationBackward);
MIMO_CUDA_KERNEL(SwiGlu);
MIMO_CUDA_KERNEL(SwiGluBackward);

}  // namespace mimo
