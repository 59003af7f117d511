// The emulator's matrix products: the CPU's.
#include "kernels/gemm.h"
#include "kernels/cuda/product.h"
#include "tests/simt/device_memory.h"

namespace mimo::cuda {
namespace {

template <class T>
Gemm<T> gemm_of(const Product& p) {
  return {.trans_a = p.trans_a,
          .trans_b = p.trans_b,
          .m = p.m,
          .n = p.n,
          .k = p.k,
          .alpha = p.alpha,
          .a = {static_cast<const T*>(p.a), p.a_ld},
          .b = {static_cast<const T*>(p.b), p.b_ld},
          .beta = p.beta,
          .c = {static_cast<T*>(p.c), p.c_ld},
          .bias = static_cast<const T*>(p.bias)};
}
GemmAccumulate<bf16> accumulate_of(const Product& p) {
  return {.trans_a = p.trans_a,
          .trans_b = p.trans_b,
          .m = p.m,
          .n = p.n,
          .k = p.k,
          .alpha = p.alpha,
          .a = {static_cast<const bf16*>(p.a), p.a_ld},
          .b = {static_cast<const bf16*>(p.b), p.b_ld},
          .beta = p.beta,
          .c = {static_cast<float*>(p.c), p.c_ld}};
}

// Calls f with the op of kernels/gemm.h that p stands for.
template <class F>
auto with_op(const Product& p, const F& f) {
  if (p.in == DType::f32) return f(gemm_of<float>(p));
  return p.out == DType::f32 ? f(accumulate_of(p)) : f(gemm_of<bf16>(p));
}

}  // namespace

bool multiply(const Cuda& cuda, const Product& p) {
  if (!bias_can_be_fused(p)) return false;
  const simt::DeviceAccess access;
  with_op(p, [&](const auto& op) { run(Cpu{cuda.ws}, op); });
  return true;
}
int64_t multiply_workspace(const Product& p) {
  return with_op(p, [](const auto& op) { return workspace(Cpu{}, op); });
}

}  // namespace mimo::cuda
