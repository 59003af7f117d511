#include "kernels/cuda/registry.h"

namespace mimo::cuda {
namespace {
std::vector<RegisteredKernel*>& all() {
  static std::vector<RegisteredKernel*> kernels;
  return kernels;
}
}  // namespace

RegisteredKernel::RegisteredKernel(std::string_view n, int bytes, const char* t)
    : name(n), shared_bytes(bytes), tag(t) {
  all().push_back(this);
}

const std::vector<RegisteredKernel*>& registered_kernels() { return all(); }

}  // namespace mimo::cuda
