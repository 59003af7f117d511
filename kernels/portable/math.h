// log, sin and cos in double whose bits are the same on every machine, for every vector width and
// optimisation level: each step is one IEEE operation, and where a product meets a sum the fused form is
// written out, so that no contraction is left for the compiler to choose. constexpr, so that nvcc takes them
// for either side (--expt-relaxed-constexpr). Branch-free, for use inside `#pragma omp simd` loops. Errors
// are at most 2 ulp.
#pragma once
#include <cmath>
#include <cstdint>

namespace mimo {

// c0 + c1 x + c2 x^2 + ...
template <class... C>
constexpr double polynomial(double x, double c0, C... rest) {
  if constexpr (sizeof...(rest) == 0)
    return c0;
  else
    return std::fma(x, polynomial(x, rest...), c0);
}

// ln x of a positive normal x = 2^e m, m in [sqrt(1/2), sqrt(2)): e ln 2 + 2 atanh(s), s = (m - 1) / (m + 1).
constexpr double portable_log(double x) {
  constexpr int64_t sqrt_half = 0x3fe6a09e667f3bcd;
  const int64_t bits = __builtin_bit_cast(int64_t, x);
  const int64_t exponent = (bits - sqrt_half) & (int64_t{-1} << 52);
  const double m = __builtin_bit_cast(double, bits - exponent);
  const double e = static_cast<double>(exponent) * 0x1p-52;
  const double s = (m - 1) / (m + 1), z = s * s;
  // atanh(s) / s - 1, a series: |s| < 0.1716, so the first term left out is below 2^-60.
  const double tail = z * polynomial(z, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15,
                                     1.0 / 17, 1.0 / 19, 1.0 / 21);
  constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;  // e ln2_high is exact
  return std::fma(e, ln2_high, std::fma(e, ln2_low, std::fma(2 * s, tail, 2 * s)));
}

struct SinCos {
  double sin, cos;
};

// Of quadrant * pi / 2 + a, |a| <= pi / 4, by the series.
constexpr SinCos sin_cos_of_quadrant(int64_t quadrant, double a) {
  const double z = a * a;
  const double s = a * polynomial(z, 1.0, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800,
                                  1.0 / 6227020800, -1.0 / 1307674368000, 1.0 / 355687428096000);
  const double c = polynomial(z, 1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800,
                              1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888000);
  const bool odd = (quadrant & 1) != 0;
  const double sine = odd ? c : s, cosine = odd ? s : c;
  return {(quadrant & 2) != 0 ? -sine : sine, ((quadrant + 1) & 2) != 0 ? -cosine : cosine};
}

// Of any |angle| below 2^50.
constexpr SinCos sin_cos(double angle) {
  constexpr double shift = 0x1.8p52;  // adding it rounds to an integer, held in the low bits
  constexpr double pi_half_high = 0x1.921fb54442d18p+0, pi_half_low = 0x1.1a62633145c07p-54;
  const double z = std::fma(angle, 0x1.45f306dc9c883p-1, shift);
  const double n = z - shift;
  const double a = std::fma(-n, pi_half_low, std::fma(-n, pi_half_high, angle));
  return sin_cos_of_quadrant(__builtin_bit_cast(int64_t, z), a);
}

}  // namespace mimo
