// Attention forward, bf16, on tensor cores by mma.sync.
//
// Floor: 4 Lq Lk D FLOPs a head at about 60 % of the dense bf16 peak, what mma.sync reaches on Hopper (one
// m16n8k16 in 1.6 cycles an SM). Shared memory gives 128 bytes a cycle, so a product may read 200 bytes an
// mma: with 16 rows a warp, K and V alone are 256 bytes an mma; with 32 rows they are 128, Q adds 64 to one
// of the two products. Hence 32 rows a warp wherever the accumulators fit (O is D registers a lane then), and
// 4 warps, so that two blocks are on an SM and one's softmax hides behind the other's products.
// K and V have one buffer each: V is under way during Q K^T and the softmax, the next K during P V.
// Q stays in shared memory: in registers it would take D / 2 a lane, which S and O do not leave.
// Not measured.
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/vector.cuh"

namespace mimo::cuda {

template <int Dim>
struct AttentionForwardShape {
  static constexpr int row_tiles = Dim <= 128 ? 2 : 1;  // of 16 queries a warp
  static constexpr int warps = Dim <= 128 ? 4 : 8;
  static constexpr int blocks = Dim <= 128 ? 2 : 1;  // on an SM
  static constexpr int queries = 16 * row_tiles * warps, keys = Dim <= 64 ? 128 : 64;
};

template <int Dim>
struct AttentionForwardShared {
  using Shape = AttentionForwardShape<Dim>;
  AttentionTile<Shape::queries, Dim> q;  // o at the end
  AttentionTile<Shape::keys, Dim> k, v;
};

template <int Dim>
__global__ void __launch_bounds__(AttentionForwardShape<Dim>::warps* kWarp,
                                  AttentionForwardShape<Dim>::blocks)
    attention_forward(Attention<bf16> op, bool vectors) {
  using Shape = AttentionForwardShape<Dim>;
  constexpr int M = Shape::row_tiles, keys = Shape::keys, threads = Shape::warps * kWarp;
  MIMO_SHARED(AttentionForwardShared<Dim>, shared);

  const int head = static_cast<int>(blockIdx.x) % op.heads;
  const AttentionSlot slot =
      attention_slot(op.cu_q, op.sequences, static_cast<int>(blockIdx.x) / op.heads, Shape::queries);
  const AttentionSequence seq(op, slot.sequence);
  const int tiles = (seq.q_len + Shape::queries - 1) / Shape::queries;
  if (slot.tile >= tiles) return;
  // The last queries see most keys: they go first.
  const int q0 = (tiles - 1 - slot.tile) * Shape::queries, rows = min(Shape::queries, seq.q_len - q0);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, m0 = static_cast<int>(threadIdx.x) / kWarp * 16 * M;
  const int end = seq.visible(q0 + rows - 1), mine_end = seq.visible(q0 + m0 + 16 * M - 1);

  const int64_t kv_column = int64_t{head / (op.heads / op.kv_heads)} * op.head_dim;
  const bf16* k = op.k + int64_t{seq.k_begin} * op.k_ld + kv_column;
  const bf16* v = op.v + int64_t{seq.k_begin} * op.v_ld + kv_column;
  copy_tile<threads>(shared.q, op.q + int64_t{seq.q_begin + q0} * op.q_ld + int64_t{head} * op.head_dim,
                     op.q_ld, rows, op.head_dim);
  copy_tile<threads>(shared.k, k, op.k_ld, end, op.head_dim);
  cp_async_commit();

  const float scale = op.scale * kAttentionLog2E;
  float o[M][Dim / 8][4] = {}, top[M][2], sum[M][2] = {};  // sum: of this lane's columns
  for (int m = 0; m < M; ++m) top[m][0] = top[m][1] = -INFINITY;

  for (int k0 = 0; k0 < end; k0 += keys) {
    float s[M][keys / 8][4] = {};
    const bool busy = k0 < mine_end;  // some row of the warp sees some of these keys
    cp_async_wait<0>();
    __syncthreads();  // K is there, the last V is done with
    copy_tile<threads>(shared.v, v + k0 * op.v_ld, op.v_ld, end - k0, op.head_dim);
    cp_async_commit();
    if (busy) {
      multiply_transposed<Dim>(s, shared.q, m0, shared.k, 0);
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int sees = seq.visible(q0 + m0 + 16 * m + 8 * r + lane / 4) - k0;
          float best = top[m][r];
          if (k0 + keys > seq.visible(q0 + m0)) {
#pragma unroll
            for (int n = 0; n < keys / 8; ++n)
#pragma unroll
              for (int c = 0; c < 2; ++c)
                if (8 * n + lane % 4 * 2 + c >= sees) s[m][n][2 * r + c] = -INFINITY;
          }
#pragma unroll
          for (int n = 0; n < keys / 8; ++n) best = max(best, max(s[m][n][2 * r], s[m][n][2 * r + 1]));
          best = quad_max(best);
          const float base = best == -INFINITY ? 0 : best * scale;
          const float shrink = exp2_fast(top[m][r] * scale - base);
          top[m][r] = best;
          sum[m][r] *= shrink;
#pragma unroll
          for (int n = 0; n < keys / 8; ++n)
#pragma unroll
            for (int c = 0; c < 2; ++c) {
              const float p = exp2_fast(s[m][n][2 * r + c] * scale - base);
              s[m][n][2 * r + c] = p;
              sum[m][r] += p;
            }
#pragma unroll
          for (int n = 0; n < Dim / 8; ++n) o[m][n][2 * r] *= shrink, o[m][n][2 * r + 1] *= shrink;
        }
    }
    cp_async_wait<0>();
    __syncthreads();  // V is there, K is done with
    if (k0 + keys < end)
      copy_tile<threads>(shared.k, k + (k0 + keys) * op.k_ld, op.k_ld, end - k0 - keys, op.head_dim);
    cp_async_commit();
    if (busy) {
#pragma unroll
      for (int j = 0; j < keys / 16; ++j) {
        uint32_t p[M][4];
        to_a(p, s, j);
        multiply(o, p, shared.v, 16 * j, 0);
      }
    }
  }

  cp_async_wait<0>();
  __syncthreads();  // Q is done with
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float all = quad_sum(sum[m][r]), norm = all == 0 ? 0 : 1 / all;
      const int row = m0 + 16 * m + 8 * r + lane / 4;
#pragma unroll
      for (int n = 0; n < Dim / 8; ++n) o[m][n][2 * r] *= norm, o[m][n][2 * r + 1] *= norm;
      if (lane % 4 == 0 && row < rows)
        op.lse[head * op.tokens_q + seq.q_begin + q0 + row] =
            all == 0 ? -INFINITY : top[m][r] * op.scale + logf(all);
    }
  store_fragments(shared.q, o, m0, 0, 1);
  __syncthreads();
  store_tile<threads>(shared.q, op.o + int64_t{seq.q_begin + q0} * op.o_ld + int64_t{head} * op.head_dim,
                      op.o_ld, rows, op.head_dim, vectors);
}

template <int Dim>
void launch_attention_forward(const Cuda& context, const Attention<bf16>& op) {
  using Shape = AttentionForwardShape<Dim>;
  const int64_t blocks = attention_slots(op.tokens_q, op.sequences, Shape::queries) * op.heads;
  launch<attention_forward<Dim>, AttentionForwardShared<Dim>>(
      context, dim3(static_cast<unsigned>(blocks)), Shape::warps * kWarp, op, aligned(op.o, op.o_ld));
}

void launch_attention_forward(const Cuda& context, const Attention<bf16>& op) {
  const int dim = op.head_dim;
  if (dim <= 64)
    launch_attention_forward<64>(context, op);
  else if (dim <= 80)
    launch_attention_forward<80>(context, op);
  else if (dim <= 96)
    launch_attention_forward<96>(context, op);
  else if (dim <= 128)
    launch_attention_forward<128>(context, op);
  else
    launch_attention_forward<256>(context, op);
}

}  // namespace mimo::cuda
