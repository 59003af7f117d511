// tests/simt/memory.cpp's twin on a GPU: plain device memory, since memcheck looks into no managed one, and a
// stream.
#include "tests/cuda/memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <stdexcept>
#include <string>

namespace mimo::op_test {
namespace {

void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error));
}

cudaStream_t stream() {
  static const cudaStream_t made = [] {
    cudaStream_t s = nullptr;
    check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return s;
  }();
  return made;
}

}  // namespace

std::shared_ptr<void> device_memory(int64_t bytes) {
  void* p = nullptr;
  check(cudaMalloc(&p, static_cast<size_t>(std::max<int64_t>(bytes, 1))), "cudaMalloc");
  check(cudaMemsetAsync(p, 0xff, static_cast<size_t>(bytes), stream()), "cudaMemsetAsync");
  return {p, [](void* q) { cudaFree(q); }};
}
void copy(void* to, const void* from, int64_t bytes) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream()),
        "cudaMemcpyAsync");
  synchronize();
}

std::vector<int> sm_counts() {
  int real = 0;
  check(cudaDeviceGetAttribute(&real, cudaDevAttrMultiProcessorCount, 0), "cudaDeviceGetAttribute");
  return chosen_sm_counts({real, 2});
}
Cuda cuda_context() { return {stream(), 0, chosen_sms(), {}}; }

void synchronize() { check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize"); }
std::vector<Way> ways() { return {{"first"}, {"second"}}; }
void set_way(int) {}

}  // namespace mimo::op_test
