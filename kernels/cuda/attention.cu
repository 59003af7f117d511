// Attention's entry points on CUDA: what runs before the kernels, and which kernels run.
//
// bf16 goes to tensor cores, fp32 to plain kernels (attention_f32.cu). The tensor core kernels read 16 bytes
// at a time: operands whose rows are not aligned so (rare: odd column slices) are copied first. Backward
// first makes {lse log2(e), delta} of every query, which reads o and d_o once, at the speed of memory.
// A kernel for one architecture is one more branch in run().
#include "kernels/attention.h"

#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/portable/scratch.h"

namespace mimo {
namespace cuda {

constexpr int kAttentionThreads = 256;

// y [rows, cols] = x, for rows of x that start anywhere; cols are a multiple of 8.
__global__ void __launch_bounds__(kAttentionThreads)
    attention_pack(int64_t rows, int cols, Rows<const bf16> x, bf16* y) {
  constexpr int N = kVector<bf16>;
  const int64_t chunk = int64_t{blockIdx.x} * kAttentionThreads + threadIdx.x, row = chunk / (cols / N);
  if (row >= rows) return;
  const int col = static_cast<int>(chunk % (cols / N)) * N;
  float v[N];
  for (int i = 0; i < N; ++i) v[i] = static_cast<float>(x[row][col + i]);
  store<N>(y + row * cols + col, v);
}

// A row of a head is a group of lanes; the groups of a warp are the heads of one row, then the next row.
template <class T, int N>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_stats(AttentionBackward<T> op, int group, float2* stats_HT) {
  const int lane = static_cast<int>(threadIdx.x) % group;
  const int64_t n = (int64_t{blockIdx.x} * kAttentionThreads + threadIdx.x) / group;
  const int64_t token = n / op.in.heads, column = n % op.in.heads * op.in.head_dim;
  const bool valid = token < op.in.tokens_q;
  float delta = 0;
  if (valid && !op.delta)
    for (int c = lane * N; c < op.in.head_dim; c += group * N) {
      float o[N], d_o[N];
      load<N>(o, op.o[token] + column + c);
      load<N>(d_o, op.d_o[token] + column + c);
      for (int i = 0; i < N; ++i) delta += o[i] * d_o[i];
    }
  for (int step = group / 2; step > 0; step /= 2) delta += __shfl_xor_sync(kAllLanes, delta, step);
  if (!valid || lane != 0) return;
  const int64_t at = n % op.in.heads * op.in.tokens_q + token;
  const float lse = op.lse[at];
  stats_HT[at] =
      make_float2(lse == -INFINITY ? INFINITY : lse * kAttentionLog2E, op.delta ? op.delta[at] : delta);
}

template <class T>
void launch_attention_stats(const Cuda& context, const AttentionBackward<T>& op, float2* stats_HT) {
  constexpr int N = kVector<T>;
  int group = 1;
  while (group < kWarp && group * N < op.in.head_dim) group *= 2;
  const dim3 grid(
      static_cast<unsigned>(ceil_div(op.in.tokens_q * op.in.heads, int64_t{kAttentionThreads} / group)));
  if (op.delta || (aligned(op.o) && aligned(op.d_o)))
    launch<attention_stats<T, N>>(context, grid, kAttentionThreads, op, group, stats_HT);
  else
    launch<attention_stats<T, 1>>(context, grid, kAttentionThreads, op, group, stats_HT);
}

// The scratch of a run; without a context it is only counted.
struct AttentionScratch {
  const Cuda* context;
  Scratch scratch;

  void align(int64_t rows, int cols, Rows<const bf16>& x) {
    if (aligned(x)) return;
    bf16* y = scratch.take<bf16>(rows * cols);
    const dim3 grid(static_cast<unsigned>(ceil_div(rows * (cols / kVector<bf16>), kAttentionThreads)));
    if (context) launch<attention_pack>(*context, grid, kAttentionThreads, rows, cols, x, y);
    x = {y, cols};
  }
  void align_qkv(AttentionInputs<bf16>& in) {
    align(in.tokens_q, in.heads * in.head_dim, in.q);
    align(in.tokens_k, in.kv_heads * in.head_dim, in.k);
    align(in.tokens_k, in.kv_heads * in.head_dim, in.v);
  }
  void operator()(Attention<bf16>& op) { align_qkv(op.in); }
  void operator()(Attention<float>&) {}
  template <class T>
  float2* operator()(AttentionBackward<T>& op) {
    float2* stats_HT = scratch.take<float2>(op.in.tokens_q * op.in.heads);
    if (context) launch_attention_stats(*context, op, stats_HT);
    if constexpr (sizeof(T) == 2) {
      align_qkv(op.in);
      align(op.in.tokens_q, op.in.heads * op.in.head_dim, op.d_o);
    }
    return stats_HT;
  }
};

template <class T>
void check_attention(const AttentionInputs<T>& in) {
  if (in.head_dim < 8 || in.head_dim > 256 || in.head_dim % 8 != 0)
    throw std::invalid_argument("attention: expected head_dim 8 to 256 and a multiple of 8, found " +
                                std::to_string(in.head_dim));
  if (in.kv_heads < 1 || in.heads % in.kv_heads != 0)
    throw std::invalid_argument("attention: expected heads to be a multiple of kv_heads, found heads " +
                                std::to_string(in.heads) + ", kv_heads " + std::to_string(in.kv_heads));
  // The softmax takes the maximum before it scales.
  if (!(in.scale > 0))
    throw std::invalid_argument("attention: expected a positive scale, found " + std::to_string(in.scale));
}

}  // namespace cuda

template <class T>
int64_t workspace(const Cuda&, const Attention<T>& op) {
  Attention<T> aligned = op;
  cuda::AttentionScratch scratch{nullptr, {}};
  scratch(aligned);
  return scratch.scratch.bytes();
}
template <class T>
int64_t workspace(const Cuda&, const AttentionBackward<T>& op) {
  AttentionBackward<T> aligned = op;
  cuda::AttentionScratch scratch{nullptr, {}};
  scratch(aligned);
  return scratch.scratch.bytes();
}

template <class T>
void run(const Cuda& context, const Attention<T>& op) {
  cuda::check_attention(op.in);
  if (op.in.tokens_q == 0) return;
  Attention<T> aligned = op;
  cuda::AttentionScratch{&context, Scratch(context.ws)}(aligned);
  cuda::launch_attention_forward(context, aligned);
}
template <class T>
void run(const Cuda& context, const AttentionBackward<T>& op) {
  cuda::check_attention(op.in);
  if (op.in.tokens_q == 0 && op.in.tokens_k == 0) return;
  AttentionBackward<T> aligned = op;
  const float2* stats_HT = cuda::AttentionScratch{&context, Scratch(context.ws)}(aligned);
  cuda::launch_attention_backward(context, aligned, stats_HT);
}

MIMO_CUDA_KERNEL_WITH_WORKSPACE(Attention);
MIMO_CUDA_KERNEL_WITH_WORKSPACE(AttentionBackward);

}  // namespace mimo
