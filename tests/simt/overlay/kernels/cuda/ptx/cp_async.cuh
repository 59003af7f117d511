// The emulator's twin of kernels/cuda/ptx/cp_async.cuh: the bytes arrive at the wait, not before.
#pragma once
#include "kernels/cuda/launch.cuh"

namespace mimo::cuda {

inline void cp_async_16(void* shared, const void* global, bool valid = true) {
  simt::async_copy(shared, global, 16, valid);
}
inline void cp_async_8(void* shared, const void* global, bool valid = true) {
  simt::async_copy(shared, global, 8, valid);
}
inline void cp_async_commit() { simt::async_commit(); }
template <int N>
void cp_async_wait() {
  simt::async_wait(N);
}

}  // namespace mimo::cuda
