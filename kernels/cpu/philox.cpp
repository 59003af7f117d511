#include "kernels/philox.h"

#include <cmath>

#include "kernels/cpu/portable_math.h"
#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

struct Words {
  uint32_t w0, w1, w2, w3;
};

inline Words philox_rounds(Words x, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * x.w0, p1 = uint64_t{0xCD9E8D57u} * x.w2;
    x = {static_cast<uint32_t>(p1 >> 32) ^ x.w1 ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ x.w3 ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return x;
}

constexpr int kCounters = 64;  // generated at a time, in loops that the compiler vectorises

using WordBlock = uint32_t[4][kCounters];
using ValueBlock = double[4][kCounters];

void make_words(uint64_t seed, uint64_t name, int64_t first, WordBlock& w) {
  const uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma omp simd
  for (int i = 0; i < kCounters; ++i) {
    const uint64_t counter = static_cast<uint64_t>(first + i);
    const Words x = philox_rounds({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32),
                                   static_cast<uint32_t>(name), static_cast<uint32_t>(name >> 32)},
                                  k0, k1);
    w[0][i] = x.w0, w[1][i] = x.w1, w[2][i] = x.w2, w[3][i] = x.w3;
  }
}

// Two independent normals from two words: sqrt(-2 ln u) (cos, sin)(2 pi w1 / 2^32), u = (w0 + 1/2) / 2^32.
void box_muller(const uint32_t* w0, const uint32_t* w1, double mean, double deviation, double* z0,
                double* z1) {
#pragma omp simd
  for (int i = 0; i < kCounters; ++i) {
    const double radius = std::sqrt(-2 * portable_log((double(w0[i]) + 0.5) * 0x1p-32));
    // The angle is quadrant * pi / 2 + a with |a| <= pi / 4; the integer part of it is exact.
    const uint32_t quadrant = (w1[i] + 0x20000000u) >> 30;
    const double a =
        double(static_cast<int32_t>(w1[i] - (quadrant << 30))) * (0x1.921fb54442d18p+0 * 0x1p-30);
    const SinCos angle = sin_cos_of_quadrant(quadrant, a);
    z0[i] = std::fma(deviation, radius * angle.cos, mean);
    z1[i] = std::fma(deviation, radius * angle.sin, mean);
  }
}

template <class F>
void map_uniform(const WordBlock& w, ValueBlock& value, F f) {
  for (int j = 0; j < 4; ++j)
#pragma omp simd
    for (int i = 0; i < kCounters; ++i) value[j][i] = f(double(w[j][i]) * 0x1p-32);
}

// first: the index of the block's first element.
void make_values(Distribution distribution, double a, double b, int64_t first, const WordBlock& w,
                 ValueBlock& value) {
  switch (distribution) {
    case Distribution::normal:
      box_muller(w[0], w[1], a, b, value[0], value[1]);
      box_muller(w[2], w[3], a, b, value[2], value[3]);
      break;
    case Distribution::uniform:
      map_uniform(w, value, [=](double u) { return std::fma(b - a, u, a); });
      break;
    case Distribution::constant:
      map_uniform(w, value, [=](double) { return a; });
      break;
    case Distribution::log_uniform:
      map_uniform(w, value, [=](double u) { return portable_log(std::fma(b - a, u, a)); });
      break;
    case Distribution::log_index:
      for (int j = 0; j < 4; ++j)
        for (int i = 0; i < kCounters; ++i)
          value[j][i] = portable_log(1 + double((first + 4 * i + j) % static_cast<int64_t>(a)));
      break;
    case Distribution::inverse_softplus: {
      const double ln_a = portable_log(a), ln_b = portable_log(b);
      map_uniform(w, value, [=](double u) {
        const double t = std::exp(std::fma(ln_b - ln_a, u, ln_a));
        return t + portable_log(-std::expm1(-t));
      });
      break;
    }
  }
}

}  // namespace

Philox4 philox(Philox4 c, std::array<uint32_t, 2> key) {
  const Words x = philox_rounds({c[0], c[1], c[2], c[3]}, key[0], key[1]);
  return {x.w0, x.w1, x.w2, x.w3};
}

template <class T>
void run(const Cpu&, const RandomFill<T>& op) {
  if (op.n == 0) return;
  // Blocks lie on a grid of their own; the elements of the first and last that are not asked for are dropped.
  constexpr int64_t kElements = 4 * kCounters;
  const int64_t begin = op.first / kElements, end = (op.first + op.n + kElements - 1) / kElements;
#pragma omp parallel for schedule(static) if (op.n > 4096)
  for (int64_t block = begin; block < end; ++block) {
    WordBlock w;
    ValueBlock value;
    make_words(op.seed, op.name, block * kCounters, w);
    make_values(op.distribution, op.a, op.b, block * kElements, w, value);
    const int64_t base = block * kElements - op.first;
    const int64_t from = std::max<int64_t>(0, -base), to = std::min(kElements, op.n - base);
    for (int64_t k = from; k < to; ++k) op.out[base + k] = static_cast<acc_t<T>>(value[k % 4][k / 4]);
  }
}

MIMO_CPU_KERNEL(RandomFill);

}  // namespace mimo
