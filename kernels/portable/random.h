// Philox4x32-10 and the values made of its words, the same text for the CPU and CUDA: kernels/philox.h says
// what they are, kernels/portable/math.h why their bits agree.
#pragma once
#include "kernels/portable/math.h"

namespace mimo {

struct Words {
  uint32_t w0, w1, w2, w3;
};

constexpr Words philox_rounds(Words x, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * x.w0, p1 = uint64_t{0xCD9E8D57u} * x.w2;
    x = {static_cast<uint32_t>(p1 >> 32) ^ x.w1 ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ x.w3 ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return x;
}

// The words of elements 4 * counter to 4 * counter + 3 of the stream of a name.
constexpr Words words_at(uint64_t seed, uint64_t name, uint64_t counter) {
  return philox_rounds({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32),
                        static_cast<uint32_t>(name), static_cast<uint32_t>(name >> 32)},
                       static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

constexpr double unit_uniform(uint32_t w) { return double(w) * 0x1p-32; }

// Two independent normals from two words: sqrt(-2 ln u) (cos, sin)(2 pi w1 / 2^32), u = (w0 + 1/2) / 2^32.
struct Normals {
  double z0, z1;
};
constexpr Normals box_muller(uint32_t w0, uint32_t w1, double mean, double deviation) {
  const double radius = std::sqrt(-2 * portable_log((double(w0) + 0.5) * 0x1p-32));
  // The angle is quadrant * pi / 2 + a with |a| <= pi / 4; the integer part of it is exact.
  const uint32_t quadrant = (w1 + 0x20000000u) >> 30;
  const double a = double(static_cast<int32_t>(w1 - (quadrant << 30))) * (0x1.921fb54442d18p+0 * 0x1p-30);
  const SinCos angle = sin_cos_of_quadrant(quadrant, a);
  return {std::fma(deviation, radius * angle.cos, mean), std::fma(deviation, radius * angle.sin, mean)};
}

// t + ln(1 - exp(-t)), whose softplus is t. expm1 is the library's: to an ulp, not to the bit.
constexpr double inverse_softplus(double t) { return t + portable_log(-std::expm1(-t)); }

}  // namespace mimo
