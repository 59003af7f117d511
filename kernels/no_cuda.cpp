// The CUDA half of every contract in a build without CUDA: each op throws where it is called.
#include "kernels/kernels.h"

namespace mimo {

#define OP(Op)                                                                    \
  template <class T>                                                              \
  void run(const Cuda&, const Op<T>&) {                                           \
    throw std::runtime_error("built without CUDA: " #Op " runs on the CPU only"); \
  }                                                                               \
  template void run<float>(const Cuda&, const Op<float>&);                        \
  template void run<bf16>(const Cuda&, const Op<bf16>&);                          \
  template void run<double>(const Cuda&, const Op<double>&);
#include "kernels/ops.def"
#undef OP

}  // namespace mimo
