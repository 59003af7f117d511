// How a .cu file ends: the two entry points of an op, for float and bf16; double computes on the CPU alone.
#pragma once
#include <stdexcept>

#include "kernels/kernel.h"

// Of an op whose file defines `workspace` as well as `run`.
#define MIMO_CUDA_KERNEL_WITH_WORKSPACE(Op)                         \
  template <>                                                       \
  void run<double>(const Cuda&, const Op<double>&) {                \
    throw std::runtime_error(#Op ": f64 computes on the CPU only"); \
  }                                                                 \
  template <>                                                       \
  int64_t workspace<double>(const Cuda&, const Op<double>&) {       \
    return 0;                                                       \
  }                                                                 \
  template int64_t workspace<float>(const Cuda&, const Op<float>&); \
  template int64_t workspace<bf16>(const Cuda&, const Op<bf16>&);   \
  template void run<float>(const Cuda&, const Op<float>&);          \
  template void run<bf16>(const Cuda&, const Op<bf16>&)
// Of one that needs no scratch.
#define MIMO_CUDA_KERNEL(Op)                     \
  template <class T>                             \
  int64_t workspace(const Cuda&, const Op<T>&) { \
    return 0;                                    \
  }                                              \
  MIMO_CUDA_KERNEL_WITH_WORKSPACE(Op)
