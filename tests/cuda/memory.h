// Memory that tests fill, kernels compute on and tests read: exact-size heap blocks under the emulator, so
// that ASan sees every access outside; managed memory on a GPU.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/kernel.h"

namespace mimo::op_test {

std::shared_ptr<void> device_memory(int64_t bytes);
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

// Thread orders that results may not depend on: the emulator has four, a GPU its own, twice.
int orders();
void set_order(int);

}  // namespace mimo::op_test
