// Memory that kernels compute on, at its exact size, and the ways in which they may run: under the emulator
// (tests/simt/memory.cpp) or on a GPU (tests/gpu/memory.cpp).
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/kernel.h"

namespace mimo::op_test {

// The device's, full of ones: NaN. The host reaches it by copies alone.
std::shared_ptr<void> device_memory(int64_t bytes);
void copy(void* to, const void* from, int64_t bytes);  // either side; after what was launched before
Cuda cuda_context();
void synchronize();  // until everything launched has run; throws what it met

// How many multiprocessors cuda_context() says there are: kernels share out their work by it, so that some
// loops run with few alone, some ways only with many. The real number and another, or $MIMO_TEST_SMS alone.
std::vector<int> sm_counts();
inline int& chosen_sms() {
  static int n = sm_counts()[0];
  return n;
}
inline void set_sms(int n) { chosen_sms() = n; }
// For an implementation: of the counts that it offers, those to use.
inline std::vector<int> chosen_sm_counts(std::vector<int> counts) {
  if (const char* one = std::getenv("MIMO_TEST_SMS")) counts = {std::max(1, std::atoi(one))};
  return counts;
}

// The emulator runs threads in four orders, then makes functions err in three ways as far as a GPU's may
// (tests/simt/noise.h); a GPU has its own way, twice.
struct Way {
  const char* name;
  bool same_bits = true;  // as the first
};
std::vector<Way> ways();
void set_way(int);

}  // namespace mimo::op_test
