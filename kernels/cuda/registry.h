// Every kernel that this build can launch: its name, its shared memory, how often it ran. `make cubin` checks
// the bytes against the architectures, the tests that no kernel goes without one.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <typeinfo>
#include <vector>

namespace mimo::cuda {

struct RegisteredKernel {
  std::string_view name;  // as the compiler writes the function
  int shared_bytes;       // dynamic shared memory of a block
  const char* tag;        // KernelTag<&kernel>, mangled: names the kernel as ptxas does
  std::atomic<int64_t> launches{0};
  RegisteredKernel(std::string_view name, int shared_bytes, const char* tag);
};
const std::vector<RegisteredKernel*>& registered_kernels();

struct NoShared {};  // of a kernel without shared memory
template <class Shared>
constexpr int shared_bytes = sizeof(Shared);
template <>
inline constexpr int shared_bytes<NoShared> = 0;

template <auto Kernel>
constexpr std::string_view kernel_name() {
  return __PRETTY_FUNCTION__;
}

template <auto Kernel>
struct KernelTag {};

// Made before main for every kernel that some launch names.
template <auto Kernel, class Shared>
inline RegisteredKernel registered{kernel_name<Kernel>(), shared_bytes<Shared>,
                                   typeid(KernelTag<Kernel>).name()};

}  // namespace mimo::cuda
