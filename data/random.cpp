#include "data/random.h"

#include <algorithm>
#include <bit>

#include "tensor/error.h"
#include "tensor/random.h"

namespace mimo {
namespace {

std::array<uint32_t, 2> words(uint64_t x) {
  return {static_cast<uint32_t>(x), static_cast<uint32_t>(x >> 32)};
}

}  // namespace

RandomStream::RandomStream(uint64_t seed, std::string_view name, uint32_t index) : key_(words(seed)) {
  const auto [low, high] = words(hash_name(name));
  counter_ = {0, index, low, high};
}

uint32_t RandomStream::bits() {
  if (used_ == 4) {
    block_ = philox(counter_, key_);
    ++counter_[0];
    used_ = 0;
  }
  return block_[static_cast<size_t>(used_++)];
}

Permutation::Permutation(int64_t n, uint64_t seed, uint64_t epoch)
    : n_(static_cast<uint64_t>(n)), key_(words(seed)), stream_(words(hash_name("data.order") + epoch)) {
  MIMO_CHECK(n > 0, "a permutation of nothing");
  half_ = std::max(1, (static_cast<int>(std::bit_width(n_ - 1)) + 1) / 2);
}

uint64_t Permutation::network(uint64_t x) const {
  const uint64_t mask = (uint64_t{1} << half_) - 1;
  uint64_t left = x >> half_, right = x & mask;
  for (uint32_t round = 0; round < 6; ++round) {
    const uint64_t f = philox({static_cast<uint32_t>(right), round, stream_[0], stream_[1]}, key_)[0];
    const uint64_t next = left ^ (f & mask);
    left = right;
    right = next;
  }
  return left << half_ | right;
}

int64_t Permutation::operator()(int64_t i) const {
  uint64_t x = static_cast<uint64_t>(i);
  MIMO_CHECK(x < n_, "index outside a permutation");
  do x = network(x);
  while (x >= n_);
  return static_cast<int64_t>(x);
}

}  // namespace mimo
