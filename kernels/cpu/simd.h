// Vectors of the machine's width, and exp, sigmoid and tanh that the compiler vectorises: branch-free, for
// use inside `#pragma omp simd` loops on scalars or directly on Vec<A>. Float versions are polynomials;
// double ones call the library, since double serves the tests.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace mimo {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

template <class A>
inline constexpr int lanes = vector_bytes / static_cast<int>(sizeof(A));

template <class A>
struct VecOf {
  typedef A type __attribute__((vector_size(vector_bytes)));
  typedef A unaligned __attribute__((vector_size(vector_bytes), may_alias, aligned(alignof(A))));
};
template <class A>
using Vec = typename VecOf<A>::type;

template <class A>
inline Vec<A> load(const A* p) {
  return *reinterpret_cast<const typename VecOf<A>::unaligned*>(p);
}
template <class A>
inline void store(A* p, Vec<A> x) {
  *reinterpret_cast<typename VecOf<A>::unaligned*>(p) = x;
}

namespace simd {

template <class F>
struct BitsOf {};
template <>
struct BitsOf<float> {
  using type = uint32_t;
};
template <>
struct BitsOf<Vec<float>> {
  using type = Vec<uint32_t>;
};
template <class F>
concept Float = requires {
  typename BitsOf<F>::type;
};

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2)/2; error at most 1 ulp with FMA, 1.2 without. Below
// the smallest normal number 0, above the largest inf; NaN stays NaN.
template <class F>
inline F exp(F x) {
  constexpr float lowest = -87.3365478515625f, highest = 88.72283172607421875f;  // ln of the normal range
  constexpr float shift = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
  const F z = x * 1.44269504088896341f + shift;
  const F n = z - shift;
  const F r = (x - n * 0.693145751953125f) - n * 1.428606765330187e-06f;
  F p = r * 0.0013926176119927734f + 0.008363173074513711f;
  p = p * r + 0.04166655466205065f;
  p = p * r + 0.1666657702559799f;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  using Bits = typename BitsOf<F>::type;
  const F y = __builtin_bit_cast(F, __builtin_bit_cast(Bits, p) + (__builtin_bit_cast(Bits, z) << 23));
  const F zero{}, above = x * std::numeric_limits<float>::infinity();
  return x <= highest ? (x >= lowest ? y : zero) : above;
}

// An odd polynomial near 0, where 1 - 2 / (exp(2x) + 1) would cancel; error at most 3 ulp.
template <class F>
inline F tanh(F x) {
  const F s = x * x;
  F p = s * -0.006096714159957808f + 0.020997178993823574f;
  p = p * s - 0.05385090957696674f;
  p = p * s + 0.13332769736959413f;
  p = p * s - 0.33333328944133755f;
  const F near = p * (s * x) + x;
  const F far = 1.f - 2.f / (exp(x + x) + 1.f);
  return s < 0.390625f ? near : far;
}

}  // namespace simd

template <class A>
inline A fast_exp(A x) {
  if constexpr (simd::Float<A>) {
    return simd::exp(x);
  } else if constexpr (std::is_same_v<A, double>) {
    return std::exp(x);
  } else {
    for (int i = 0; i < lanes<double>; ++i) x[i] = std::exp(x[i]);
    return x;
  }
}

// 1 / (1 + exp(-x))
template <class A>
inline A sigmoid(A x) {
  return 1 / (1 + fast_exp(-x));
}

template <class A>
inline A fast_tanh(A x) {
  if constexpr (simd::Float<A>) {
    return simd::tanh(x);
  } else {
    static_assert(std::is_same_v<A, double>);
    return std::tanh(x);
  }
}

}  // namespace mimo
