// Attention in fp32, without TF32: plain, one kernel for all head sizes, in the structure of the bf16 ones
// (attention_forward.cu, attention_backward.cu). A block has tiles of 32 rows and 32 columns; four lanes
// share a row: lane t makes scores t, t + 4, ... of it, and sums elements t, t + 4, ... of the head
// dimension. Limit: two 4-byte reads of shared memory a multiply-add, so about an eighth of the FFMA rate.
// Not measured.
#include "kernels/cuda/attention_tiles.cuh"

namespace mimo::cuda {

constexpr int kAttentionF32Tile = 32, kAttentionF32Threads = 4 * kAttentionF32Tile;
constexpr int kAttentionF32Scores = kAttentionF32Tile / 4, kAttentionF32Dims = 256 / 4;  // of a lane

using AttentionF32Rows = float[kAttentionF32Tile][257];
using AttentionF32Square = float[kAttentionF32Tile][33];

__device__ inline void attention_f32_load(AttentionF32Rows& tile, const float* x, int64_t ld, int rows,
                                          int head_dim) {
  for (int i = static_cast<int>(threadIdx.x); i < kAttentionF32Tile * head_dim; i += kAttentionF32Threads) {
    const int row = i / head_dim, col = i % head_dim;
    tile[row][col] = row < rows ? x[row * ld + col] : 0;
  }
}

// s[j] = x . y[t + 4 j]
__device__ inline void attention_f32_scores(float (&s)[kAttentionF32Scores], const float* x,
                                            const AttentionF32Rows& y, int t, int head_dim) {
  for (float& x_y : s) x_y = 0;
  for (int d = 0; d < head_dim; ++d)
#pragma unroll
    for (int j = 0; j < kAttentionF32Scores; ++j) s[j] += x[d] * y[t + 4 * j][d];
}

// sum += p y, for the lane's elements of the head dimension.
__device__ inline void attention_f32_add(float (&sum)[kAttentionF32Dims], const float* p,
                                         const AttentionF32Rows& y, int t, int head_dim) {
  for (int j = 0; j < kAttentionF32Tile; ++j)
#pragma unroll
    for (int d = 0; d < kAttentionF32Dims; ++d)
      if (4 * d < head_dim) sum[d] += p[j] * y[j][t + 4 * d];
}

__device__ inline void attention_f32_store(float* x, const float (&sum)[kAttentionF32Dims], float factor,
                                           int t, int head_dim) {
#pragma unroll
  for (int d = 0; d < kAttentionF32Dims; ++d)
    if (4 * d < head_dim) x[t + 4 * d] = sum[d] * factor;
}

struct AttentionF32ForwardShared {
  AttentionF32Rows q, k, v;
  AttentionF32Square p;
};

__global__ void __launch_bounds__(kAttentionF32Threads) attention_f32_forward(Attention<float> op) {
  constexpr int tile = kAttentionF32Tile;
  MIMO_SHARED(AttentionF32ForwardShared, shared);
  const int head = static_cast<int>(blockIdx.x) % op.in.heads,
            kv_head = head / (op.in.heads / op.in.kv_heads);
  const AttentionSlot slot =
      attention_slot(op.in.cu_q, op.in.sequences, static_cast<int>(blockIdx.x) / op.in.heads, tile);
  const AttentionSequence seq(op.in, slot.sequence);
  const int q0 = slot.tile * tile, rows = min(tile, seq.q_len - q0);
  if (rows <= 0) return;
  const int row = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  const int sees = seq.visible(q0 + row), end = seq.visible(q0 + rows - 1);
  const int64_t column = int64_t{head} * op.in.head_dim, kv_column = int64_t{kv_head} * op.in.head_dim;
  const int64_t token0 = seq.q_begin + q0;
  attention_f32_load(shared.q, op.in.q[token0] + column, op.in.q.ld, rows, op.in.head_dim);

  float o[kAttentionF32Dims] = {}, top = -INFINITY, sum = 0;
  for (int k0 = 0; k0 < end; k0 += tile) {
    const int64_t key0 = seq.k_begin + k0;
    __syncthreads();
    attention_f32_load(shared.k, op.in.k[key0] + kv_column, op.in.k.ld, end - k0, op.in.head_dim);
    attention_f32_load(shared.v, op.in.v[key0] + kv_column, op.in.v.ld, end - k0, op.in.head_dim);
    __syncthreads();
    float s[kAttentionF32Scores], best = top;
    attention_f32_scores(s, shared.q[row], shared.k, t, op.in.head_dim);
    for (int j = 0; j < kAttentionF32Scores; ++j) {
      s[j] = k0 + t + 4 * j < sees ? s[j] * op.in.scale : -INFINITY;
      best = max(best, s[j]);
    }
    best = quad_max(best);
    const float base = best == -INFINITY ? 0 : best, shrink = expf(top - base);
    top = best;
    sum *= shrink;
    for (int j = 0; j < kAttentionF32Scores; ++j) {
      const float p = expf(s[j] - base);
      shared.p[row][t + 4 * j] = p;
      sum += p;
    }
    __syncwarp();
    for (float& x : o) x *= shrink;
    attention_f32_add(o, shared.p[row], shared.v, t, op.in.head_dim);
  }
  const float all = quad_sum(sum);
  if (row >= rows) return;
  attention_f32_store(op.o[token0 + row] + column, o, all == 0 ? 0 : 1 / all, t, op.in.head_dim);
  if (t == 0) op.lse[head * op.in.tokens_q + token0 + row] = all == 0 ? -INFINITY : top + logf(all);
}

struct AttentionF32BackwardShared {
  AttentionF32Rows x, y, u, w;
  AttentionF32Square p, ds;
};

// The rows are keys (dk, dv) or queries (dq); see attention_backward.cu for X, Y, U and W.
template <bool Keys>
__global__ void __launch_bounds__(kAttentionF32Threads)
    attention_f32_backward(AttentionBackward<float> op, const float2* stats_HT) {
  constexpr int tile = kAttentionF32Tile;
  MIMO_SHARED(AttentionF32BackwardShared, shared);
  const int heads = Keys ? op.in.kv_heads : op.in.heads, head = static_cast<int>(blockIdx.x) % heads;
  const int group = op.in.heads / op.in.kv_heads, kv_head = Keys ? head : head / group;
  const AttentionSlot slot = attention_slot(Keys ? op.in.cu_k : op.in.cu_q, op.in.sequences,
                                            static_cast<int>(blockIdx.x) / heads, tile);
  const AttentionSequence seq(op.in, slot.sequence);
  const int row0 = slot.tile * tile, rows = min(tile, (Keys ? seq.k_len : seq.q_len) - row0);
  if (rows <= 0) return;
  const int row = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  const int begin = Keys ? seq.first_query(row0) : 0, end = Keys ? seq.q_len : seq.visible(row0 + rows - 1);

  // q (or d_o) and k (or v) of a tile of queries or keys
  const auto load_q = [&](AttentionF32Rows& to, const Rows<const float>& x, int at, int h, int n) {
    attention_f32_load(to, x[seq.q_begin + at] + int64_t{h} * op.in.head_dim, x.ld, n, op.in.head_dim);
  };
  const auto load_k = [&](AttentionF32Rows& to, const Rows<const float>& x, int at, int n) {
    attention_f32_load(to, x[seq.k_begin + at] + int64_t{kv_head} * op.in.head_dim, x.ld, n, op.in.head_dim);
  };
  if constexpr (Keys) {
    load_k(shared.x, op.in.k, row0, rows);
    load_k(shared.y, op.in.v, row0, rows);
  } else {
    load_q(shared.x, op.in.q, row0, head, rows);
    load_q(shared.y, op.d_o, row0, head, rows);
  }

  float sum_u[kAttentionF32Dims] = {}, sum_w[Keys ? kAttentionF32Dims : 1] = {};
  for (int h = Keys ? head * group : head; h < (Keys ? (head + 1) * group : head + 1); ++h)
    for (int at = begin; at < end; at += tile) {
      __syncthreads();
      if constexpr (Keys) {
        load_q(shared.u, op.in.q, at, h, end - at);
        load_q(shared.w, op.d_o, at, h, end - at);
      } else {
        load_k(shared.u, op.in.k, at, end - at);
        load_k(shared.w, op.in.v, at, end - at);
      }
      __syncthreads();
      float s[kAttentionF32Scores], dp[kAttentionF32Scores];
      attention_f32_scores(s, shared.x[row], shared.u, t, op.in.head_dim);
      attention_f32_scores(dp, shared.y[row], shared.w, t, op.in.head_dim);
      for (int j = 0; j < kAttentionF32Scores; ++j) {
        const int col = at + t + 4 * j, query = Keys ? col : row0 + row, key = Keys ? row0 + row : col;
        float p = 0, ds = 0;
        if (query < seq.q_len && key < seq.visible(query)) {
          const float2 stats = stats_HT[h * op.in.tokens_q + seq.q_begin + query];
          p = expf(s[j] * op.in.scale - stats.x / kAttentionLog2E);
          ds = p * (dp[j] - stats.y);
        }
        shared.p[row][t + 4 * j] = p;
        shared.ds[row][t + 4 * j] = ds;
      }
      __syncwarp();
      attention_f32_add(sum_u, shared.ds[row], shared.u, t, op.in.head_dim);
      if constexpr (Keys) attention_f32_add(sum_w, shared.p[row], shared.w, t, op.in.head_dim);
    }

  if (row >= rows) return;
  if constexpr (Keys) {
    const int64_t at = seq.k_begin + row0 + row, column = int64_t{head} * op.in.head_dim;
    attention_f32_store(op.dk[at] + column, sum_u, op.in.scale, t, op.in.head_dim);
    attention_f32_store(op.dv[at] + column, sum_w, 1, t, op.in.head_dim);
  } else {
    const int64_t at = seq.q_begin + row0 + row;
    attention_f32_store(op.dq[at] + int64_t{head} * op.in.head_dim, sum_u, op.in.scale, t, op.in.head_dim);
  }
}

void launch_attention_forward(const Cuda& context, const Attention<float>& op) {
  const int64_t slots = attention_slots(op.in.tokens_q, op.in.sequences, kAttentionF32Tile);
  launch<attention_f32_forward, AttentionF32ForwardShared>(
      context, dim3(static_cast<unsigned>(slots * op.in.heads)), kAttentionF32Threads, op);
}

void launch_attention_backward(const Cuda& context, const AttentionBackward<float>& op,
                               const float2* stats_HT) {
  const int64_t q_slots = attention_slots(op.in.tokens_q, op.in.sequences, kAttentionF32Tile);
  const int64_t k_slots = attention_slots(op.in.tokens_k, op.in.sequences, kAttentionF32Tile);
  launch<attention_f32_backward<false>, AttentionF32BackwardShared>(
      context, dim3(static_cast<unsigned>(q_slots * op.in.heads)), kAttentionF32Threads, op, stats_HT);
  launch<attention_f32_backward<true>, AttentionF32BackwardShared>(
      context, dim3(static_cast<unsigned>(k_slots * op.in.kv_heads)), kAttentionF32Threads, op, stats_HT);
}

}  // namespace mimo::cuda
