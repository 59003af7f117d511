#include "kernels/philox.h"

#include <cmath>

#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

// The doubles below are the same bits on every machine, vector width and optimisation level: every step is
// one IEEE operation, and where a product meets a sum the fused form is written out, so that none is left for
// the compiler to contract or not.
inline double polynomial(double) { return 0; }
template <class... C>
inline double polynomial(double x, double first, C... rest) {
  if constexpr (sizeof...(rest) == 0)
    return first;
  else
    return std::fma(x, polynomial(x, rest...), first);
}

// ln x of a normal positive x: x = 2^e m with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh(s), s = (m - 1) / (m
// + 1).
inline double log_double(double x) {
  const uint64_t bits = __builtin_bit_cast(uint64_t, x);
  const uint64_t shifted = bits - 0x3fe6a09e667f3bcdu;  // bits of sqrt(1/2): floor(log2) around it
  const int64_t e = static_cast<int64_t>(shifted) >> 52;
  const double m = __builtin_bit_cast(double, bits - (static_cast<uint64_t>(e) << 52));
  const double s = (m - 1) / (m + 1), z = s * s;
  // atanh(s) / s - 1 = z / 3 + z^2 / 5 + ..., |s| < 0.1716, so z^11 / 23 is below 2^-60.
  const double tail = z * polynomial(z, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15,
                                     1.0 / 17, 1.0 / 19, 1.0 / 21);
  const double log_m = std::fma(2 * s, tail, 2 * s);
  constexpr double kLn2High = 0x1.62e42fefa38p-1, kLn2Low = 0x1.ef35793c7673p-45;  // e kLn2High is exact
  return std::fma(double(e), kLn2High, std::fma(double(e), kLn2Low, log_m));
}

struct Pair {
  double first, second;
};

// Two independent normals from two words: sqrt(-2 ln u) (cos, sin)(2 pi w1 / 2^32), u = (w0 + 1/2) / 2^32.
inline Pair box_muller(uint32_t w0, uint32_t w1) {
  const double radius = std::sqrt(-2 * log_double((double(w0) + 0.5) * 0x1p-32));
  // The angle is quadrant * pi / 2 + a with |a| <= pi / 4, exactly.
  const uint32_t quadrant = (w1 + 0x20000000u) >> 30;
  const double a = double(static_cast<int32_t>(w1 - (quadrant << 30))) * (0x1.921fb54442d18p+0 * 0x1p-30);
  const double z = a * a;
  const double sin_a = a * polynomial(z, 1.0, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800,
                                      1.0 / 6227020800, -1.0 / 1307674368000, 1.0 / 355687428096000);
  const double cos_a = polynomial(z, 1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800,
                                  1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888000);
  const bool swap = quadrant & 1;
  const double c = swap ? sin_a : cos_a, s = swap ? cos_a : sin_a;
  return {radius * ((quadrant + 1) & 2 ? -c : c), radius * (quadrant & 2 ? -s : s)};
}

inline void philox_rounds(uint32_t* x, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * x[0], p1 = uint64_t{0xCD9E8D57u} * x[2];
    const uint32_t y0 = static_cast<uint32_t>(p1 >> 32) ^ x[1] ^ k0,
                   y2 = static_cast<uint32_t>(p0 >> 32) ^ x[3] ^ k1;
    x[0] = y0, x[1] = static_cast<uint32_t>(p1), x[2] = y2, x[3] = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
}

// The four words of counter i, mapped to the distribution.
template <class T>
struct Generator {
  const RandomFill<T>& op;
  double ln_a, ln_b;
  explicit Generator(const RandomFill<T>& o) : op(o), ln_a(0), ln_b(0) {
    if (op.distribution == Distribution::inverse_softplus) ln_a = std::log(op.a), ln_b = std::log(op.b);
  }

  void operator()(int64_t i, double* out) const {
    uint32_t w[4] = {static_cast<uint32_t>(i), static_cast<uint32_t>(static_cast<uint64_t>(i) >> 32),
                     static_cast<uint32_t>(op.name), static_cast<uint32_t>(op.name >> 32)};
    philox_rounds(w, static_cast<uint32_t>(op.seed), static_cast<uint32_t>(op.seed >> 32));
    switch (op.distribution) {
      case Distribution::normal:
        for (int j = 0; j < 4; j += 2) {
          const Pair p = box_muller(w[j], w[j + 1]);
          out[j] = std::fma(op.b, p.first, op.a), out[j + 1] = std::fma(op.b, p.second, op.a);
        }
        break;
      case Distribution::uniform:
        for (int j = 0; j < 4; ++j) out[j] = std::fma(op.b - op.a, double(w[j]) * 0x1p-32, op.a);
        break;
      case Distribution::constant:
        for (int j = 0; j < 4; ++j) out[j] = op.a;
        break;
      case Distribution::log_uniform:
        for (int j = 0; j < 4; ++j) out[j] = log_double(std::fma(op.b - op.a, double(w[j]) * 0x1p-32, op.a));
        break;
      case Distribution::inverse_softplus:
        for (int j = 0; j < 4; ++j) {
          const double t = std::exp(std::fma(ln_b - ln_a, double(w[j]) * 0x1p-32, ln_a));
          out[j] = t + std::log(-std::expm1(-t));
        }
        break;
    }
  }
};

}  // namespace

Philox4 philox(Philox4 counter, std::array<uint32_t, 2> key) {
  philox_rounds(counter.data(), key[0], key[1]);
  return counter;
}

template <class T>
void run(const Cpu&, const RandomFill<T>& op) {
  if (op.n == 0) return;
  const Generator<T> generate(op);
  const int64_t begin = op.first / 4, end = (op.first + op.n + 3) / 4;  // counters that hold any element
#pragma omp parallel for schedule(static) if (op.n > 4096)
  for (int64_t i = begin; i < end; ++i) {
    double value[4];
    generate(i, value);
    for (int j = 0; j < 4; ++j) {
      const int64_t k = 4 * i + j - op.first;
      if (k >= 0 && k < op.n) op.out[k] = T(acc_t<T>(value[j]));
    }
  }
}

MIMO_CPU_KERNEL(RandomFill);

}  // namespace mimo
