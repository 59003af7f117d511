// The emulator's twin of kernels/cuda/launch.cuh.
#pragma once
#include <cuda_runtime.h>

#include "kernels/cuda/entry.h"
#include "kernels/cuda/registry.h"
#include "kernels/kernel.h"

namespace mimo::cuda {

constexpr int kWarp = 32;

template <auto Kernel, class Shared = NoShared, class... Args>
void launch(const Cuda&, dim3 grid, int threads, Args... args) {
  RegisteredKernel& entry = registered<Kernel, Shared>;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  simt::run(entry.name, grid, threads, entry.shared_bytes, [&] { Kernel(args...); });
  entry.launches.fetch_add(1, std::memory_order_relaxed);
}

#define MIMO_SHARED(Type, name) Type& name = *static_cast<Type*>(::simt::shared_memory(sizeof(Type)))

}  // namespace mimo::cuda
