// The CUDA half of every contract in a build without CUDA: each op throws where it is called.
#include "kernels/kernels.h"

namespace mimo {

#define OP(Op)                                                                    \
  template <class T>                                                              \
  void run(const Cuda&, const Op<T>&) {                                           \
    throw std::runtime_error("built without CUDA: " #Op " runs on the CPU only"); \
  }                                                                               \
  template <class T>                                                              \
  int64_t workspace(const Cuda&, const Op<T>&) {                                  \
    return 0;                                                                     \
  }                                                                               \
  template int64_t workspace<float>(const Cuda&, const Op<float>&);               \
  template int64_t workspace<bf16>(const Cuda&, const Op<bf16>&);                 \
  template int64_t workspace<double>(const Cuda&, const Op<double>&);             \
  template void run<float>(const Cuda&, const Op<float>&);                        \
  template void run<bf16>(const Cuda&, const Op<bf16>&);                          \
  template void run<double>(const Cuda&, const Op<double>&);
#include "kernels/ops.def"
#undef OP

}  // namespace mimo
