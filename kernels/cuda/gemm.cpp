// The two products over a BLAS library. It is given what it is made for; k = 0 and a bias that it cannot add
// are one pass over C by a kernel of our own.
#include "kernels/gemm.h"

#include "kernels/cuda/entry.h"
#include "kernels/cuda/product.h"

namespace mimo {
namespace {

template <class Op>
cuda::Product product_of(const Op& op, DType in, DType out, const void* bias) {
  return {.in = in,
          .out = out,
          .trans_a = op.trans_a,
          .trans_b = op.trans_b,
          .m = op.m,
          .n = op.n,
          .k = op.k,
          .alpha = op.alpha,
          .a = op.a.data,
          .a_ld = op.a.ld,
          .b = op.b.data,
          .b_ld = op.b.ld,
          .beta = op.beta,
          .c = op.c.data,
          .c_ld = op.c.ld,
          .bias = bias};
}
template <class T>
cuda::Product product_of(const Gemm<T>& op) {
  return product_of(op, dtype_of<T>(), dtype_of<T>(), op.bias);
}
template <class T>
cuda::Product product_of(const GemmAccumulate<T>& op) {
  return product_of(op, dtype_of<T>(), acc_of(dtype_of<T>()), nullptr);
}

void compute(const Cuda& context, cuda::Product p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k > 0 && cuda::multiply(context, p)) return;
  cuda::scale_and_add_bias(context, p);
  if (p.k == 0) return;
  // beta C + bias was rounded to C's type, which is exact for the usual beta = 0.
  p.beta = 1;
  p.bias = nullptr;
  cuda::multiply(context, p);
}

int64_t scratch(const cuda::Product& p) {
  return p.m == 0 || p.n == 0 || p.k == 0 ? 0 : cuda::multiply_workspace(p);
}

}  // namespace

template <class T>
int64_t workspace(const Cuda&, const Gemm<T>& op) {
  return scratch(product_of(op));
}
template <class T>
int64_t workspace(const Cuda&, const GemmAccumulate<T>& op) {
  return scratch(product_of(op));
}
template <class T>
void run(const Cuda& context, const Gemm<T>& op) {
  compute(context, product_of(op));
}
template <class T>
void run(const Cuda& context, const GemmAccumulate<T>& op) {
  compute(context, product_of(op));
}

MIMO_CUDA_KERNEL_WITH_WORKSPACE(Gemm);
MIMO_CUDA_KERNEL_WITH_WORKSPACE(GemmAccumulate);

}  // namespace mimo
