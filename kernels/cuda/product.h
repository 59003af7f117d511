// What the CUDA half of kernels/gemm.h is made of: a matrix product of a BLAS library, and our kernel for
// what the library leaves out. kernels/cuda/cublaslt.cpp has the product; tests/simt/gemm.cpp takes its place
// under the emulator.
#pragma once
#include "kernels/kernel.h"

namespace mimo::cuda {

// Gemm and GemmAccumulate (kernels/gemm.h) with their types as values: A and B are `in`, C and the bias
// `out`.
struct Product {
  DType in, out;
  bool trans_a, trans_b;
  int64_t m, n, k;
  float alpha;
  const void* a;
  int64_t a_ld;
  const void* b;
  int64_t b_ld;
  float beta;
  void* c;
  int64_t c_ld;
  const void* bias;
};

// C = alpha op(A) op(B) + beta C + bias, of sizes above 0. False, with nothing done, where the library cannot
// add this bias; without one it computes or throws.
bool multiply(const Cuda&, const Product&);
int64_t multiply_workspace(const Product&);

// C = beta C + bias, without A and B.
void scale_and_add_bias(const Cuda&, const Product&);

// Kernels with a fused bias read 16 bytes of it at once, whatever alignment they were asked for.
inline bool bias_can_be_fused(const Product& p) { return reinterpret_cast<uintptr_t>(p.bias) % 16 == 0; }

}  // namespace mimo::cuda
