// Random numbers for composing data: a stream for every (seed, name, index).
#pragma once
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

#include "kernels/philox.h"

namespace mimo {

// Elements index 2^34 and following of the stream of the name (kernels/philox.h). Bits and uniforms are the
// same on every machine, normals to the rounding of its logarithm and cosine.
class RandomStream {
 public:
  RandomStream(uint64_t seed, std::string_view name, uint32_t index);
  uint32_t bits();
  double uniform() { return bits() * 0x1p-32; }  // [0, 1)
  double uniform(double a, double b) { return a + (b - a) * uniform(); }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((uint64_t{bits()} * n) >> 32); }
  double normal() {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  std::array<uint32_t, 2> key_;
  Philox4 counter_, block_{};  // counter of the next block; the block in use
  int used_ = 4;
};

// A permutation of [0, n) that depends on (seed, epoch) only and needs no memory: a Feistel network on the
// next even number of bits, walked until it falls below n.
class Permutation {
 public:
  Permutation(int64_t n, uint64_t seed, uint64_t epoch);
  int64_t operator()(int64_t i) const;  // i in [0, n)

 private:
  uint64_t network(uint64_t x) const;
  uint64_t n_;
  std::array<uint32_t, 2> key_, stream_;
  int half_;  // bits of each half of x
};

}  // namespace mimo
