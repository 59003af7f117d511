// How a .cu file launches a kernel and reaches shared memory. tests/simt/overlay has the emulator's twin.
//
//   struct Shared { float sum[32]; };
//   template <class T> __global__ void __launch_bounds__(256) sum_rows(SumRows<T> op) {
//     MIMO_SHARED(Shared, s);
//     ...
//   }
//   launch<sum_rows<T>, Shared>(cuda, dim3(rows), 256, op);
//
// Rules: shared memory is one struct a kernel (never static __shared__); warps are whole and no collective
// follows after a lane has left; no float atomics; a block may wait for lower block indices only; kernels lie
// in a named namespace, so that their names are the same to every compiler.
#pragma once
#include <cuda_runtime.h>

#include <atomic>
#include <stdexcept>

#include "kernels/cuda/entry.h"
#include "kernels/cuda/registry.h"
#include "kernels/kernel.h"

namespace mimo::cuda {

constexpr int kWarp = 32;

// Kernel(args...) on grid x threads, with one Shared a block. An empty grid is no launch.
template <auto Kernel, class Shared = NoShared, class... Args>
void launch(const Cuda& cuda, dim3 grid, int threads, Args... args) {
  constexpr int bytes = shared_bytes<Shared>;
  RegisteredKernel& entry = registered<Kernel, Shared>;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if constexpr (bytes > 48 * 1024) {
    static std::atomic<uint64_t> allowed{0};  // a bit for each device
    const uint64_t bit = uint64_t{1} << (cuda.device % 64);
    if (!(allowed.load() & bit)) {
      const cudaError_t error =
          cudaFuncSetAttribute(Kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      if (error != cudaSuccess)
        throw std::runtime_error(std::to_string(bytes) + " bytes of shared memory for " +
                                 std::string(entry.name) + ": " + cudaGetErrorString(error));
      allowed |= bit;
    }
  }
  Kernel<<<grid, threads, bytes, static_cast<cudaStream_t>(cuda.stream)>>>(args...);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess)
    throw std::runtime_error("launching " + std::string(entry.name) + ", or work queued before it: " +
                             cudaGetErrorString(error) + " (CUDA_LAUNCH_BLOCKING=1 tells which)");
  entry.launches.fetch_add(1, std::memory_order_relaxed);
}

#define MIMO_SHARED(Type, name)                                 \
  extern __shared__ __align__(128) unsigned char mimo_shared[]; \
  Type& name = *reinterpret_cast<Type*>(mimo_shared)

}  // namespace mimo::cuda
