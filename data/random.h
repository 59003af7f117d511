// Random numbers for composing data: a stream for every (seed, name, index), the same on every machine.
#pragma once
#include <cmath>
#include <numbers>
#include <string_view>

#include "kernels/philox.h"

namespace mimo {

class RandomStream {
 public:
  RandomStream(uint64_t seed, std::string_view name, uint64_t index);
  uint32_t bits();
  double uniform() { return bits() * 0x1p-32; }  // [0, 1)
  double uniform(double a, double b) { return a + (b - a) * uniform(); }
  int64_t below(int64_t n) {
    return static_cast<int64_t>((static_cast<uint64_t>(bits()) * static_cast<uint64_t>(n)) >> 32);
  }  // n < 2^32
  double normal() {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  std::array<uint32_t, 2> key_;
  Philox4 counter_, block_{};
  int used_ = 4;
};

// A permutation of [0, n) that depends on (seed, epoch) only and needs no memory: a Feistel network on the
// next even number of bits, walked until it falls below n.
class Permutation {
 public:
  Permutation(int64_t n, uint64_t seed, uint64_t epoch);
  int64_t operator()(int64_t i) const;

 private:
  uint64_t step(uint64_t x) const;
  int64_t n_;
  uint64_t seed_, epoch_;
  int half_;  // bits
};

}  // namespace mimo
