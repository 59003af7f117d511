// The name of a stream of random numbers (kernels/philox.h) as a number, the same in every build.
#pragma once
#include <cstdint>
#include <string_view>

namespace mimo {

// FNV-1a, 64 bits (Fowler, Noll and Vo; IETF draft-eastlake-fnv): h = 0xcbf29ce484222325; for every byte h =
// (h ^ byte) 0x100000001b3.
constexpr uint64_t hash_name(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325u;
  for (char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

}  // namespace mimo
