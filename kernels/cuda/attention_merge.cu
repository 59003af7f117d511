// Merge of two partial attentions. Floor: o_a twice and o_b once through memory. A row of a head is a group
// of lanes of one warp, so that all of them have read lse_a before one overwrites it.
#include "kernels/attention.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo {
namespace cuda {

constexpr int kAttentionMergeThreads = 256;

template <class T, int N>
__global__ void __launch_bounds__(kAttentionMergeThreads) attention_merge(AttentionMerge<T> op, int group) {
  const int lane = static_cast<int>(threadIdx.x) % group;
  const int64_t n = (int64_t{blockIdx.x} * kAttentionMergeThreads + threadIdx.x) / group;
  const int64_t token = n / op.heads, column = n % op.heads * op.head_dim;
  const int64_t at = n % op.heads * op.tokens + token;
  const bool valid = token < op.tokens;
  const float lse_a = valid ? op.lse_a[at] : 0, lse_b = valid ? op.lse_b[at] : 0;
  __syncwarp();
  if (!valid) return;
  const float most = max(lse_a, lse_b), base = most == -INFINITY ? 0 : most;
  const float a = expf(lse_a - base), b = expf(lse_b - base), norm = a + b == 0 ? 0 : 1 / (a + b);
  T* x = op.o_a[token] + column;
  const T* y = op.o_b[token] + column;
  for (int c = lane * N; c < op.head_dim; c += group * N) {
    float u[N], v[N];
    load<N>(u, x + c);
    load<N>(v, y + c);
    for (int i = 0; i < N; ++i) u[i] = a * norm * u[i] + b * norm * v[i];
    store<N>(x + c, u);
  }
  if (lane == 0) op.lse_a[at] = most == -INFINITY ? -INFINITY : most + logf(a + b);
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const AttentionMerge<T>& op) {
  using namespace cuda;
  constexpr int N = kVector<T>;
  int group = 1;
  while (group < kWarp && group * N < op.head_dim) group *= 2;
  const dim3 grid(
      static_cast<unsigned>(ceil_div(op.tokens * op.heads, int64_t{kAttentionMergeThreads} / group)));
  if (aligned(op.o_a) && aligned(op.o_b))
    cuda::launch<attention_merge<T, N>>(context, grid, kAttentionMergeThreads, op, group);
  else
    cuda::launch<attention_merge<T, 1>>(context, grid, kAttentionMergeThreads, op, group);
}

MIMO_CUDA_KERNEL(AttentionMerge);

}  // namespace mimo
