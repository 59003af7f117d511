// Attention backward, bf16, on tensor cores by mma.sync, in two passes: a block of queries walks over its
// keys for dq, a block of keys over its queries (of all heads of its group) for dk and dv. One kernel is
// both: with X, Y the block's rows, U, W the columns they walk over,
//
//             X   Y    U   W     S = X U^T, dP = Y W^T, P = exp(scale S - lse), dS = P (dP - delta)
//   queries   q   d_o  k   v     dq = scale sum dS U
//   keys      k   v    q   d_o   dk = scale sum dS U,  dv = sum P W        (S, P, dS transposed)
//
// Two passes are 7 products a tile where one is 5, but sums then have one order, need no atomics and no wait
// between blocks. A warp's P and dS are, as they lie in registers, the A of the products that sum.
//
// A warp has 32 rows, for the traffic of shared memory (attention_forward.cu): in cycles an mma, 2 for S and
// dP of 32 columns, 1.7 of 48, 1 for the sums; mma.sync itself takes 1.6. With 16 rows they are 3 and 2.
// Where dk and dv of 32 rows take too many registers (2 D of a lane), `split` warps share the rows: each
// makes a part of the columns of P and dS, the others take it from shared memory, and each sums a part of the
// head dimension: 2 and 1.4 cycles. U has two buffers, or one where two do not fit; W, which the last product
// does not need, has one.
//
// Considered: one pass that adds dq into fp32 memory in the order of key blocks (5 products, but blocks wait
// for each other, and full attention starts all of them at the same queries); dk and dv in passes of their
// own (8 products, not faster than the exchange). All sizes are as large as registers allow: what spilled at
// first were the integers of the loop, hence one counter, columns numbered as rows of the packed arrays, and
// masks tested by lane. Not measured.
#include <type_traits>

#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/vector.cuh"

namespace mimo::cuda {

enum class AttentionSide { queries, keys };

template <int Dim, AttentionSide Side>
struct AttentionBackwardShape {
  static constexpr bool is_keys = Side == AttentionSide::keys;
  static constexpr int split = Dim > 128 ? 4 : Dim > 80 && is_keys ? 2 : 1;
  static constexpr int groups = Dim > 128 ? 2 : 4, warps = groups * split, blocks = split == 1 ? 2 : 1;
  static constexpr int rows = 32 * groups;
  static constexpr int columns = split > 1 ? 64 : (is_keys || Dim > 96) ? 32 : 48;
  static constexpr int buffers = Dim > 128 ? 1 : 2;  // of U: 163 KB, what sm_80 has, is not enough for two
};

struct AttentionNothing {};

template <int Dim, AttentionSide Side>
struct AttentionBackwardShared {
  using Shape = AttentionBackwardShape<Dim, Side>;
  AttentionTile<Shape::rows, Dim> x, y;  // the results at the end
  AttentionTile<Shape::columns, Dim> u[Shape::buffers], w;
  // {lse log2(e), delta} of the queries that are columns.
  std::conditional_t<Shape::is_keys, float2[Shape::buffers][Shape::columns], AttentionNothing> stats;
  using Exchange = AttentionTile<Shape::rows, Shape::columns>;
  std::conditional_t<(Shape::split > 1), Exchange, AttentionNothing> ds;
  std::conditional_t<(Shape::split > 1 && Shape::is_keys), Exchange, AttentionNothing> p;
};

// sum += A Y over the columns of the parts but one; A of the rows m0.. is in shared memory.
template <int Parts, int M, int D, int Rows, int Cols, int YCols>
__device__ inline void multiply_others(AttentionFragments<M, D>& sum, const AttentionTile<Rows, Cols>& a,
                                       int m0, int part, const AttentionTile<Cols, YCols>& y, int d0) {
  constexpr int width = Cols / Parts;
#pragma unroll
  for (int i = 1; i < Parts; ++i)
#pragma unroll
    for (int j = 0; j < width; j += 16) {
      const int col = (part + i) % Parts * width + j;
      uint32_t fragments[M][4];
#pragma unroll
      for (int m = 0; m < M; ++m) load_a(fragments[m], a, m0 + 16 * m, col);
      multiply(sum, fragments, y, col, d0);
    }
}

template <int Dim, AttentionSide Side>
__global__ void __launch_bounds__(AttentionBackwardShape<Dim, Side>::warps* kWarp,
                                  AttentionBackwardShape<Dim, Side>::blocks)
    attention_backward(AttentionBackward<bf16> op, const float2* stats_HT, bool vectors) {
  using Shape = AttentionBackwardShape<Dim, Side>;
  constexpr bool is_keys = Shape::is_keys;
  constexpr int M = 2, buffers = Shape::buffers, split = Shape::split, columns = Shape::columns;
  constexpr int N = columns / split / 8, D = Dim / split / 8, threads = Shape::warps * kWarp;
  using Shared = AttentionBackwardShared<Dim, Side>;
  MIMO_SHARED(Shared, shared);

  // The rows of this block: those that see or are seen most come first.
  const int heads = is_keys ? op.in.kv_heads : op.in.heads, head = static_cast<int>(blockIdx.x) % heads;
  const int group = op.in.heads / op.in.kv_heads, kv_head = is_keys ? head : head / group;
  const AttentionSlot slot = attention_slot(is_keys ? op.in.cu_k : op.in.cu_q, op.in.sequences,
                                            static_cast<int>(blockIdx.x) / heads, Shape::rows);
  const AttentionSequence seq(op.in, slot.sequence);
  const int length = is_keys ? seq.k_len : seq.q_len, tiles = (length + Shape::rows - 1) / Shape::rows;
  if (slot.tile >= tiles) return;
  const int row0 = (is_keys ? slot.tile : tiles - 1 - slot.tile) * Shape::rows;
  const int rows = min(Shape::rows, length - row0);

  // Its columns, as rows of the packed arrays; walked over once for each query head of the group.
  const int origin = is_keys ? seq.q_begin : seq.k_begin;
  const int begin = origin + (is_keys ? seq.first_query(row0) : 0);
  const int end = origin + (is_keys ? seq.q_len : seq.visible(row0 + rows - 1));
  const int steps = (end - begin + columns - 1) / columns * (is_keys ? group : 1);

  const auto q = [&](const Rows<const bf16>& x, int row, int h) {
    return x[row] + int64_t{h} * op.in.head_dim;
  };
  const auto k = [&](const Rows<const bf16>& x, int row) {
    return x[row] + int64_t{kv_head} * op.in.head_dim;
  };
  const auto copy_u = [&](int buffer, int at, int h) {
    if constexpr (is_keys) {
      copy_tile<threads>(shared.u[buffer], q(op.in.q, at, h), op.in.q.ld, end - at, op.in.head_dim);
      const int i = static_cast<int>(threadIdx.x);
      if (i < columns)
        cp_async_8(&shared.stats[buffer][i], stats_HT + h * op.in.tokens_q + at + i, at + i < end);
    } else {
      copy_tile<threads>(shared.u[buffer], k(op.in.k, at), op.in.k.ld, end - at, op.in.head_dim);
    }
    cp_async_commit();
  };
  const auto copy_w = [&](int at, int h) {
    if constexpr (is_keys)
      copy_tile<threads>(shared.w, q(op.d_o, at, h), op.d_o.ld, end - at, op.in.head_dim);
    else
      copy_tile<threads>(shared.w, k(op.in.v, at), op.in.v.ld, end - at, op.in.head_dim);
    cp_async_commit();
  };

  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int part = split == 1 ? 0 : warp % split, m0 = warp / split * 16 * M;
  const int n0 = part * 8 * N, d0 = part * 8 * D;  // its part of the columns and of the head dimension

  if constexpr (is_keys) {
    copy_tile<threads>(shared.x, k(op.in.k, seq.k_begin + row0), op.in.k.ld, rows, op.in.head_dim);
    copy_tile<threads>(shared.y, k(op.in.v, seq.k_begin + row0), op.in.v.ld, rows, op.in.head_dim);
  } else {
    copy_tile<threads>(shared.x, q(op.in.q, seq.q_begin + row0, head), op.in.q.ld, rows, op.in.head_dim);
    copy_tile<threads>(shared.y, q(op.d_o, seq.q_begin + row0, head), op.d_o.ld, rows, op.in.head_dim);
  }
  cp_async_commit();
  int at = begin, h = kv_head * group;  // of the columns: the first, and the query head if they are queries
  if (steps > 0) copy_u(steps % buffers, at, h), copy_w(at, h);

  float2 mine[M][2];  // {lse log2(e), delta} of the queries that are rows
  if constexpr (!is_keys)
    for (int m = 0; m < M; ++m)
      for (int r = 0; r < 2; ++r) {
        const int row = m0 + 16 * m + 8 * r + lane / 4;
        mine[m][r] = make_float2(INFINITY, 0);
        if (row < rows) mine[m][r] = stats_HT[head * op.in.tokens_q + seq.q_begin + row0 + row];
      }

  // This lane's column at + 8 i + c is masked if it is less than `diagonal`, plus the row, for keys; if it is
  // not less than that or `limit` for queries.
  const int lane_col = n0 + lane % 4 * 2, lane_row = row0 + m0 + lane / 4;
  const int diagonal = origin + lane_row + (is_keys ? seq.shift : 1 - seq.shift) - lane_col;
  const int limit = origin + seq.k_len - lane_col;

  const float scale = op.in.scale * kAttentionLog2E;
  float sum_u[M][D][4] = {}, sum_w[M][is_keys ? D : 1][4] = {};
  for (int left = steps; left > 0; --left) {
    cp_async_wait<0>();
    __syncthreads();  // U and W are there; the other U, and what the parts exchanged, are done with
    const bool wraps = at + columns >= end;
    const int next_at = wraps ? begin : at + columns, next_h = wraps ? h + 1 : h;
    if (buffers == 2 && left > 1) copy_u((left - 1) % 2, next_at, next_h);
    const auto& u = shared.u[left % buffers];
    float p[M][N][4] = {}, ds[M][N][4] = {};
    multiply_transposed<Dim>(p, shared.x, m0, u, n0);
    multiply_transposed<Dim>(ds, shared.y, m0, shared.w, n0);

    if (is_keys ? at < diagonal + 16 * M - 8 : at + 8 * N > min(diagonal, limit)) {  // some are
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int edge =
              is_keys ? diagonal + 16 * m + 8 * r - at : min(diagonal + 16 * m + 8 * r, limit) - at;
#pragma unroll
          for (int i = 0; i < N; ++i)
#pragma unroll
            for (int c = 0; c < 2; ++c)
              if (is_keys ? 8 * i + c < edge : 8 * i + c >= edge) p[m][i][2 * r + c] = -INFINITY;
        }
    }
    __syncwarp();  // lanes parted there, and the products want them together
#pragma unroll
    for (int i = 0; i < N; ++i)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float2 stats;
        if constexpr (is_keys) stats = shared.stats[left % buffers][n0 + 8 * i + lane % 4 * 2 + c];
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            if constexpr (!is_keys) stats = mine[m][r];
            float &x = p[m][i][2 * r + c], &y = ds[m][i][2 * r + c];
            x = exp2_fast(x * scale - stats.x);
            y = x * (y - stats.y);
          }
      }

    if constexpr (split > 1) {
      store_fragments(shared.ds, ds, m0, n0, 1);
      if constexpr (is_keys) store_fragments(shared.p, p, m0, n0, 1);
    }
    if constexpr (is_keys) {
#pragma unroll
      for (int j = 0; j < N / 2; ++j) {
        uint32_t a[M][4];
        to_a(a, p, j);
        multiply(sum_w, a, shared.w, n0 + 16 * j, d0);
      }
    }
    __syncthreads();  // the parts are there; if W is for dP alone, it is done with
    if constexpr (is_keys && split > 1) {
      multiply_others<split>(sum_w, shared.p, m0, part, shared.w, d0);
      __syncthreads();  // W is done with
    }
    if (left > 1) copy_w(next_at, next_h);
#pragma unroll
    for (int j = 0; j < N / 2; ++j) {
      uint32_t a[M][4];
      to_a(a, ds, j);
      multiply(sum_u, a, u, n0 + 16 * j, d0);
    }
    if constexpr (split > 1) multiply_others<split>(sum_u, shared.ds, m0, part, u, d0);
    if (buffers == 1 && left > 1) {
      __syncthreads();  // U is done with
      copy_u(0, next_at, next_h);
    }
    at = next_at, h = next_h;
  }

  cp_async_wait<0>();
  __syncthreads();  // X and Y are done with
  store_fragments(shared.x, sum_u, m0, d0, op.in.scale);
  if constexpr (is_keys) store_fragments(shared.y, sum_w, m0, d0, 1);
  __syncthreads();
  if constexpr (is_keys) {
    const int64_t row = seq.k_begin + row0, column = int64_t{kv_head} * op.in.head_dim;
    store_tile<threads>(shared.x, op.dk[row] + column, op.dk.ld, rows, op.in.head_dim, vectors);
    store_tile<threads>(shared.y, op.dv[row] + column, op.dv.ld, rows, op.in.head_dim, vectors);
  } else {
    const int64_t row = seq.q_begin + row0, column = int64_t{head} * op.in.head_dim;
    store_tile<threads>(shared.x, op.dq[row] + column, op.dq.ld, rows, op.in.head_dim, vectors);
  }
}

template <int Dim, AttentionSide Side>
void launch_attention_side(const Cuda& context, const AttentionBackward<bf16>& op, const float2* stats) {
  using Shape = AttentionBackwardShape<Dim, Side>;
  const int64_t slots =
      attention_slots(Shape::is_keys ? op.in.tokens_k : op.in.tokens_q, op.in.sequences, Shape::rows);
  const int64_t blocks = slots * (Shape::is_keys ? op.in.kv_heads : op.in.heads);
  const bool vectors = Shape::is_keys ? aligned(op.dk) && aligned(op.dv) : aligned(op.dq);
  launch<attention_backward<Dim, Side>, AttentionBackwardShared<Dim, Side>>(
      context, dim3(static_cast<unsigned>(blocks)), Shape::warps * kWarp, op, stats, vectors);
}

template <int Dim>
void launch_attention_backward(const Cuda& context, const AttentionBackward<bf16>& op, const float2* stats) {
  launch_attention_side<Dim, AttentionSide::queries>(context, op, stats);
  launch_attention_side<Dim, AttentionSide::keys>(context, op, stats);
}

void launch_attention_backward(const Cuda& context, const AttentionBackward<bf16>& op, const float2* stats) {
  const int dim = op.in.head_dim;
  if (dim <= 64)
    launch_attention_backward<64>(context, op, stats);
  else if (dim <= 80)
    launch_attention_backward<80>(context, op, stats);
  else if (dim <= 96)
    launch_attention_backward<96>(context, op, stats);
  else if (dim <= 128)
    launch_attention_backward<128>(context, op, stats);
  else
    launch_attention_backward<256>(context, op, stats);
}

}  // namespace mimo::cuda
