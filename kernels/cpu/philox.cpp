#include "kernels/philox.h"

#include <cmath>

#include "kernels/cpu/threads.h"
#include "kernels/portable/random.h"

namespace mimo {
namespace {

constexpr int kCounters = 64;  // generated at a time, in loops that the compiler vectorises

using WordBlock = uint32_t[4][kCounters];
using ValueBlock = double[4][kCounters];

void make_words(uint64_t seed, uint64_t name, int64_t first, WordBlock& w) {
#pragma omp simd
  for (int i = 0; i < kCounters; ++i) {
    const Words x = words_at(seed, name, static_cast<uint64_t>(first + i));
    w[0][i] = x.w0, w[1][i] = x.w1, w[2][i] = x.w2, w[3][i] = x.w3;
  }
}

void make_normals(const uint32_t* w0, const uint32_t* w1, double mean, double deviation, double* z0,
                  double* z1) {
#pragma omp simd
  for (int i = 0; i < kCounters; ++i) {
    const Normals z = box_muller(w0[i], w1[i], mean, deviation);
    z0[i] = z.z0, z1[i] = z.z1;
  }
}

template <class F>
void map_uniform(const WordBlock& w, ValueBlock& value, F f) {
  for (int j = 0; j < 4; ++j)
#pragma omp simd
    for (int i = 0; i < kCounters; ++i) value[j][i] = f(unit_uniform(w[j][i]));
}

// first: the index of the block's first element.
void make_values(Distribution distribution, double a, double b, int64_t first, const WordBlock& w,
                 ValueBlock& value) {
  switch (distribution) {
    case Distribution::normal:
      make_normals(w[0], w[1], a, b, value[0], value[1]);
      make_normals(w[2], w[3], a, b, value[2], value[3]);
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
      map_uniform(w, value,
                  [=](double u) { return inverse_softplus(std::exp(std::fma(ln_b - ln_a, u, ln_a))); });
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
  parallel_for(end - begin, 16 * op.n, [&](int64_t i) {
    const int64_t block = begin + i;
    WordBlock w;
    ValueBlock value;
    make_words(op.seed, op.name, block * kCounters, w);
    make_values(op.distribution, op.a, op.b, block * kElements, w, value);
    const int64_t base = block * kElements - op.first;
    const int64_t from = std::max<int64_t>(0, -base), to = std::min(kElements, op.n - base);
    for (int64_t k = from; k < to; ++k) op.out[base + k] = static_cast<acc_t<T>>(value[k % 4][k / 4]);
  });
}

MIMO_CPU_KERNEL(RandomFill);

}  // namespace mimo
