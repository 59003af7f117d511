// Root mean square norm. A block of 256 threads a row.
#include "kernels/rms_norm.h"

#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo {
namespace cuda {

constexpr int kThreads = 256;
struct RmsNormShared {
  float scratch[kWarp];
};

template <class T, int N>
__global__ void __launch_bounds__(kThreads) rms_norm_forward(RmsNorm<T> op) {
  MIMO_SHARED(RmsNormShared, s);
  const T* x = op.x + int64_t{blockIdx.x} * op.x_ld;
  T* y = op.y + int64_t{blockIdx.x} * op.y_ld;
  float square = 0;
  for (int c = static_cast<int>(threadIdx.x) * N; c < op.cols; c += kThreads * N) {
    float v[N];
    load<N>(v, x + c);
    for (int i = 0; i < N; ++i) square += v[i] * v[i];
  }
  const float r = rsqrtf(block_sum(square, s.scratch) / static_cast<float>(op.cols) + op.eps);
  for (int c = static_cast<int>(threadIdx.x) * N; c < op.cols; c += kThreads * N) {
    float v[N], w[N];
    load<N>(v, x + c);
    load<N>(w, op.w + c);
    for (int i = 0; i < N; ++i) v[i] *= r * w[i];
    store<N>(y + c, v);
  }
  if (threadIdx.x == 0 && op.r) op.r[blockIdx.x] = r;
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const RmsNorm<T>& op) {
  using namespace cuda;
  constexpr int N = kVector<T>;
  const dim3 grid(static_cast<unsigned>(op.rows));
  if (op.cols % N == 0 && aligned(op.x, op.x_ld) && aligned(op.y, op.y_ld) && aligned(op.w, 0))
    cuda::launch<rms_norm_forward<T, N>, RmsNormShared>(context, grid, kThreads, op);
  else
    cuda::launch<rms_norm_forward<T, 1>, RmsNormShared>(context, grid, kThreads, op);
}

MIMO_CUDA_KERNEL(RmsNorm);

}  // namespace mimo
