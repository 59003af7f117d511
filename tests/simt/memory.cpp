#include "tests/cuda/memory.h"

#include <cstring>
#include <iterator>
#include <new>

#include "tests/simt/device_memory.h"
#include "tests/simt/noise.h"
#include "tests/simt/simt.h"

namespace mimo::op_test {

std::shared_ptr<void> device_memory(int64_t bytes) {
  void* p = simt::allocate_device(bytes);
  if (!p) throw std::bad_alloc();
  const simt::DeviceAccess access;
  std::memset(p, 0xff, static_cast<size_t>(bytes));
  return {p, simt::free_device};
}
void copy(void* to, const void* from, int64_t bytes) { simt::copy(to, from, bytes); }
std::vector<int> sm_counts() { return chosen_sm_counts({2, 132}); }
Cuda cuda_context() { return {nullptr, 0, chosen_sms(), {}}; }
void synchronize() {}

std::vector<Way> ways() {
  return {{"threads up"},         {"threads down"},        {"warps up"},           {"warps down"},
          {"errors away", false}, {"errors apart", false}, {"errors mixed", false}};
}
void set_way(int i) {
  constexpr int n = static_cast<int>(std::size(simt::kOrders));
  simt::set_order(simt::kOrders[i < n ? i : 0]);
  simt::set_noise(i < n ? simt::Noise::none : simt::kNoises[i - n]);
}

}  // namespace mimo::op_test
