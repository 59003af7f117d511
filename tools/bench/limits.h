// What the device of the current stream can do at most, measured.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace mimo::bench {

struct Limits {
  static constexpr int64_t kSmallest = 16 << 10, kLargest = 256 << 20;  // bytes of both arrays, on a CPU
  double flop_per_second[2] = {};                                       // f32, bf16: see main.cpp
  std::vector<double> stream;  // bytes per second, at kSmallest, 4 times that, ...

  // Of a copy (on a CPU: or y += x, the faster) over two arrays of together as many bytes, so in the same
  // cache.
  double bytes_per_second(double bytes) const {
    size_t i = 0;
    for (double size = 4 * kSmallest; i + 1 < stream.size() && bytes >= size; size *= 4) ++i;
    return stream[i];
  }
};

Limits measure_limits();

}  // namespace mimo::bench
