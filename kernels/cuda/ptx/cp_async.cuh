// Copies from global to shared memory that run on their own (sm_80): issue some, commit them as a group, wait
// until at most N groups are under way, then a barrier shows them to the other threads.
#pragma once
#include "kernels/cuda/launch.cuh"

namespace mimo::cuda {

// 16 bytes, or 8; zeros where !valid (the source is not read then).
__device__ inline void cp_async_16(void* shared, const void* global, bool valid = true) {
  const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void cp_async_8(void* shared, const void* global, bool valid = true) {
  const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(at), "l"(global), "r"(valid ? 8 : 0)
               : "memory");
}
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

}  // namespace mimo::cuda
