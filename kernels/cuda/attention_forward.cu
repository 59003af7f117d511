// Attention forward, bf16, on tensor cores by mma.sync.
//
// Floor: 4 Lq Lk D FLOPs a head at about 60 % of the dense bf16 peak, what mma.sync reaches on Hopper (one
// m16n8k16 in 1.6 cycles an SM). Shared memory gives 128 bytes a cycle, so a product may read 200 bytes an
// mma. K and V alone are 256 with 16 rows a warp and 128 with 32; Q adds 64 to one of the two products. Hence
// 32 rows a warp wherever the accumulators fit (O is D registers of a lane), and 4 warps, so that two blocks
// are on an SM and the softmax of one hides behind the products of the other. Head 256 has 16 rows a warp and
// is bound by shared memory.
// A tile of 64 keys at head 128 is, a warp, 256 mma (1640 cycles of a quarter SM), 80 ldmatrix, 68
// exponentials (540 cycles of its special function unit) and about 500 other instructions. O takes 128
// registers of a lane and S 64, so neither more keys nor Q in registers (64) fit in 255. K and V have one
// buffer each: V is under way during Q K^T and the softmax, the next K during P V. Only tiles that cross the
// diagonal or the end are masked, and a warp leaves out tiles that none of its rows sees. Not measured.
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/vector.cuh"

namespace mimo::cuda {

template <int Dim>
struct AttentionForwardShape {
  static constexpr int row_tiles = Dim <= 128 ? 2 : 1;  // of 16 queries a warp
  static constexpr int warps = Dim <= 128 ? 4 : 8;
  static constexpr int blocks = Dim <= 128 ? 2 : 1;  // on an SM
  static constexpr int queries = 16 * row_tiles * warps, keys = Dim <= 64 ? 96 : 64;
};

template <int Dim>
struct AttentionForwardShared {
  using Shape = AttentionForwardShape<Dim>;
  AttentionTile<Shape::queries, Dim> q;  // o at the end
  AttentionTile<Shape::keys, Dim> k, v;
};

// One step of the online softmax: S becomes P = 2^(scale (S - top)) for the new maximum `top` of the rows; O
// and the sums, each of this lane's columns, are scaled down to it.
template <int M, int N, int D>
__device__ inline void softmax_step(AttentionFragments<M, N>& s, AttentionFragments<M, D>& o,
                                    float (&top)[M][2], float (&sum)[M][2], float scale) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float best = top[m][r];
#pragma unroll
      for (int n = 0; n < N; ++n) best = max(best, max(s[m][n][2 * r], s[m][n][2 * r + 1]));
      best = quad_max(best);
      const float base = best == -INFINITY ? 0 : best * scale;  // no key was visible yet: P = 0
      const float shrink = exp2_fast(top[m][r] * scale - base);
      top[m][r] = best;
      sum[m][r] *= shrink;
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float& p = s[m][n][2 * r + c];
          p = exp2_fast(p * scale - base);
          sum[m][r] += p;
        }
#pragma unroll
      for (int n = 0; n < D; ++n) o[m][n][2 * r] *= shrink, o[m][n][2 * r + 1] *= shrink;
    }
}

template <int Dim>
__global__ void __launch_bounds__(AttentionForwardShape<Dim>::warps* kWarp,
                                  AttentionForwardShape<Dim>::blocks)
    attention_forward(Attention<bf16> op, bool vectors) {
  using Shape = AttentionForwardShape<Dim>;
  constexpr int M = Shape::row_tiles, keys = Shape::keys, threads = Shape::warps * kWarp;
  MIMO_SHARED(AttentionForwardShared<Dim>, shared);

  const int head = static_cast<int>(blockIdx.x) % op.in.heads;
  const AttentionSlot slot =
      attention_slot(op.in.cu_q, op.in.sequences, static_cast<int>(blockIdx.x) / op.in.heads, Shape::queries);
  const AttentionSequence seq(op.in, slot.sequence);
  const int tiles = (seq.q_len + Shape::queries - 1) / Shape::queries;
  if (slot.tile >= tiles) return;
  // The last queries see most keys: they go first.
  const int q0 = (tiles - 1 - slot.tile) * Shape::queries, rows = min(Shape::queries, seq.q_len - q0);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, m0 = static_cast<int>(threadIdx.x) / kWarp * 16 * M;
  const int q_row = seq.q_begin + q0, q_column = head * op.in.head_dim;
  const int kv_column = head / (op.in.heads / op.in.kv_heads) * op.in.head_dim;

  // The keys that the block sees, as rows of the packed arrays; the warp sees those before mine_end.
  const int begin = seq.k_begin, end = begin + seq.visible(q0 + rows - 1);
  const int mine_end = begin + seq.visible(q0 + m0 + 16 * M - 1);
  // This lane's key at + 8 n + c is masked if it is not less than `diagonal`, plus the row, or `limit`.
  const int diagonal = begin + q0 + m0 + lane / 4 + 1 - seq.shift - lane % 4 * 2;
  const int limit = begin + seq.k_len - lane % 4 * 2;

  copy_tile<threads>(shared.q, op.in.q[q_row] + q_column, op.in.q.ld, rows, op.in.head_dim);
  copy_tile<threads>(shared.k, op.in.k[begin] + kv_column, op.in.k.ld, end - begin, op.in.head_dim);
  cp_async_commit();

  const float scale = op.in.scale * kAttentionLog2E;
  float o[M][Dim / 8][4] = {}, top[M][2], sum[M][2] = {};
  for (int m = 0; m < M; ++m) top[m][0] = top[m][1] = -INFINITY;

  for (int at = begin; at < end; at += keys) {
    float s[M][keys / 8][4];
    const bool busy = at < mine_end;
    cp_async_wait<0>();
    __syncthreads();  // K is there, the last V is done with
    copy_tile<threads>(shared.v, op.in.v[at] + kv_column, op.in.v.ld, end - at, op.in.head_dim);
    cp_async_commit();
    if (busy) {
#pragma unroll
      for (int i = 0; i < M * keys / 2; ++i) s[i / (keys / 2)][i % (keys / 2) / 4][i % 4] = 0;
      multiply_transposed<Dim>(s, shared.q, m0, shared.k, 0);
      if (at + keys > min(diagonal, limit)) {  // some are
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const int edge = min(diagonal + 16 * m + 8 * r, limit) - at;
#pragma unroll
            for (int n = 0; n < keys / 8; ++n)
#pragma unroll
              for (int c = 0; c < 2; ++c)
                if (8 * n + c >= edge) s[m][n][2 * r + c] = -INFINITY;
          }
      }
      softmax_step(s, o, top, sum, scale);
    }
    cp_async_wait<0>();
    __syncthreads();  // V is there, K is done with
    const int next = at + keys;
    if (next < end)
      copy_tile<threads>(shared.k, op.in.k[next] + kv_column, op.in.k.ld, end - next, op.in.head_dim);
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
        op.lse[head * op.in.tokens_q + q_row + row] =
            all == 0 ? -INFINITY : top[m][r] * op.in.scale + logf(all);
    }
  store_fragments(shared.q, o, m0, 0, 1);
  __syncthreads();
  store_tile<threads>(shared.q, op.o[q_row] + q_column, op.o.ld, rows, op.in.head_dim, vectors);
}

template <int Dim>
void launch_attention_forward(const Cuda& context, const Attention<bf16>& op) {
  using Shape = AttentionForwardShape<Dim>;
  const int64_t blocks = attention_slots(op.in.tokens_q, op.in.sequences, Shape::queries) * op.in.heads;
  launch<attention_forward<Dim>, AttentionForwardShared<Dim>>(context, dim3(static_cast<unsigned>(blocks)),
                                                              Shape::warps * kWarp, op, aligned(op.o));
}

void launch_attention_forward(const Cuda& context, const Attention<bf16>& op) {
  const int dim = op.in.head_dim;
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
