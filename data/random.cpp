#include "data/random.h"

#include <bit>

#include "tensor/random.h"

namespace mimo {

RandomStream::RandomStream(uint64_t seed, std::string_view name, uint64_t index)
    : key_{static_cast<uint32_t>(seed),
           static_cast<uint32_t>(seed >> 32) ^ static_cast<uint32_t>(hash_name(name))},
      counter_{0, static_cast<uint32_t>(hash_name(name) >> 32), static_cast<uint32_t>(index),
               static_cast<uint32_t>(index >> 32)} {}

uint32_t RandomStream::bits() {
  if (used_ == 4) {
    block_ = philox(counter_, key_);
    ++counter_[0];
    used_ = 0;
  }
  return block_[used_++];
}

Permutation::Permutation(int64_t n, uint64_t seed, uint64_t epoch) : n_(n), seed_(seed), epoch_(epoch) {
  half_ = (std::bit_width(static_cast<uint64_t>(n > 1 ? n - 1 : 1)) + 1) / 2;
}

uint64_t Permutation::step(uint64_t x) const {
  const uint64_t mask = (uint64_t{1} << half_) - 1;
  uint64_t left = x >> half_, right = x & mask;
  for (uint32_t round = 0; round < 6; ++round) {
    const Philox4 f = philox({static_cast<uint32_t>(right), round, static_cast<uint32_t>(epoch_),
                              static_cast<uint32_t>(epoch_ >> 32)},
                             {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
    const uint64_t next = left ^ (f[0] & mask);
    left = right;
    right = next;
  }
  return left << half_ | right;
}

int64_t Permutation::operator()(int64_t i) const {
  uint64_t x = static_cast<uint64_t>(i);
  do x = step(x);
  while (x >= static_cast<uint64_t>(n_));
  return static_cast<int64_t>(x);
}

}  // namespace mimo
