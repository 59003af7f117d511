// C = beta C + bias: a product with k = 0, and the step before a product whose bias the library cannot add.
// Rare, so one element a thread: memory limits it (read and write C once; not measured).
#include "kernels/cuda/product.h"
#include "kernels/cuda/ptx/convert.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo::cuda {

constexpr int kGemmScaleThreads = 128;

// Block: columns [tile, tile + 1) * threads of one row of C; n_tiles tiles a row.
template <class T>
__global__ void __launch_bounds__(kGemmScaleThreads)
    gemm_scale(int64_t n, unsigned n_tiles, float beta, T* c, int64_t c_ld, const T* bias) {
  const int64_t row = blockIdx.x / n_tiles;
  const int64_t col = int64_t{blockIdx.x % n_tiles} * kGemmScaleThreads + threadIdx.x;
  if (col >= n) return;
  T* at = c + row * c_ld + col;
  const float scaled = beta == 0 ? 0 : beta * static_cast<float>(*at);
  *at = to_type<T>(bias ? scaled + static_cast<float>(bias[col]) : scaled);
}

void scale_and_add_bias(const Cuda& cuda, const Product& p) {
  if (p.beta == 1 && !p.bias) return;
  const auto n_tiles = static_cast<unsigned>(ceil_div(p.n, kGemmScaleThreads));
  const dim3 grid(static_cast<unsigned>(p.m * n_tiles));
  if (p.out == DType::f32)
    launch<gemm_scale<float>>(cuda, grid, kGemmScaleThreads, p.n, n_tiles, p.beta, static_cast<float*>(p.c),
                              p.c_ld, static_cast<const float*>(p.bias));
  else
    launch<gemm_scale<bf16>>(cuda, grid, kGemmScaleThreads, p.n, n_tiles, p.beta, static_cast<bf16*>(p.c),
                             p.c_ld, static_cast<const bf16*>(p.bias));
}

}  // namespace mimo::cuda
