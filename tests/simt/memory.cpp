#include "tests/cuda/memory.h"

#include <cstdlib>
#include <new>

#include "tests/simt/simt.h"

namespace mimo::op_test {

std::shared_ptr<void> device_memory(int64_t bytes) {
  void* p = nullptr;
  if (posix_memalign(&p, 64, static_cast<size_t>(bytes)) != 0) throw std::bad_alloc();
  return {p, std::free};
}
std::vector<int> sm_counts() { return chosen_sm_counts({2, 132}); }
Cuda cuda_context() { return {nullptr, 0, chosen_sms(), {}}; }
void synchronize() {}
int orders() { return 4; }
void set_order(int i) { simt::set_order(simt::kOrders[i]); }

}  // namespace mimo::op_test
