// What attention's tensor core kernels share: which tile of which sequence a block works on, tiles in shared
// memory, and the fragments that a warp takes from them.
//
// A tile's rows are padded by 16 bytes. That makes the stride an odd multiple of 16 bytes, so that the eight
// rows of a matrix that ldmatrix takes, and the four-byte stores of a fragment, meet no bank twice; unlike a
// swizzle it leaves every address a base of the lane plus a constant.
#pragma once
#include "kernels/attention.h"
#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/ptx/convert.cuh"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo::cuda {

constexpr int kAttentionChunk = 8;  // elements of bf16 in 16 bytes

// One packed sequence. Key j is visible to query i iff j < visible(i), that is iff first_query(j) <= i.
struct AttentionSequence {
  int q_begin, q_len, k_begin, k_len;
  int shift;  // global position of key 0 less that of query 0; for full attention, so low that all is visible

  template <class T>
  __device__ AttentionSequence(const AttentionInputs<T>& in, int s)
      : q_begin(in.cu_q[s]),
        q_len(in.cu_q[s + 1] - q_begin),
        k_begin(in.cu_k[s]),
        k_len(in.cu_k[s + 1] - k_begin) {
    const int64_t low = -int64_t{k_len}, high = q_len;
    const int64_t apart = (in.first_k ? in.first_k[s] : 0) - (in.first_q ? in.first_q[s] : 0);
    shift = static_cast<int>(in.causal ? min(max(apart, low), high) : low);
  }
  __device__ int visible(int i) const { return min(max(i - shift + 1, 0), k_len); }
  __device__ int first_query(int j) const { return min(max(j + shift, 0), q_len); }
};

// Tiles of ragged sequences without a table: sequence s owns the slots from cu[s] / tile + s on, up to those
// of s + 1. They are at least as many as its tiles, and at most one more, and the host knows their number.
inline int64_t attention_slots(int64_t tokens, int sequences, int tile) {
  return sequences == 0 ? 0 : tokens / tile + sequences;
}
struct AttentionSlot {
  int sequence, tile;  // the tile may lie behind the sequence's end
};
// Every lane of a warp takes part: 32 sequences are compared at a time.
__device__ inline AttentionSlot attention_slot(const int32_t* cu, int sequences, int slot, int tile) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int low = 0, count = sequences;  // the owner is one of [low, low + count)
  while (count > 1) {
    const int step = (count + kWarp - 1) / kWarp, at = low + lane * step;
    const bool begun = lane * step < count && cu[at] / tile + at <= slot;
    const int skip = (__popc(__ballot_sync(kAllLanes, begun)) - 1) * step;
    low += skip;
    count = min(step, count - skip);
  }
  return {low, slot - (cu[low] / tile + low)};
}

template <int Rows, int Cols>
struct alignas(16) AttentionTile {
  static constexpr int ld = Cols + kAttentionChunk;
  bf16 x[Rows * ld];
  __device__ bf16* at(int row, int col) { return x + row * ld + col; }
  __device__ const bf16* at(int row, int col) const { return x + row * ld + col; }
};

// Starts the copy of `rows` rows of head_dim elements, 16-byte aligned; zeros fill up the tile.
template <int Threads, int Rows, int Cols>
__device__ inline void copy_tile(AttentionTile<Rows, Cols>& tile, const bf16* x, int64_t ld, int rows,
                                 int head_dim) {
  constexpr int across = Cols <= 64 ? 8 : Cols <= 128 ? 16 : 32, down = Threads / across;
  static_assert(Rows % down == 0 && Cols <= across * kAttentionChunk);
  const int row = static_cast<int>(threadIdx.x) / across,
            col = static_cast<int>(threadIdx.x) % across * kAttentionChunk;
  if (col >= Cols) return;
  const bf16* from = x + row * ld + col;
  if (col >= head_dim) rows = 0;
#pragma unroll
  for (int i = 0; i < Rows; i += down, from += down * ld)
    cp_async_16(tile.at(row + i, col), from, row + i < rows);
}
// The other way, by element where rows are not aligned.
template <int Threads, int Rows, int Cols>
__device__ inline void store_tile(const AttentionTile<Rows, Cols>& tile, bf16* x, int64_t ld, int rows,
                                  int head_dim, bool vectors) {
  constexpr int chunks = Cols / kAttentionChunk;
  for (int n = static_cast<int>(threadIdx.x); n < Rows * chunks; n += Threads) {
    const int row = n / chunks, col = n % chunks * kAttentionChunk;
    if (row >= rows || col >= head_dim) continue;
    const bf16* from = tile.at(row, col);
    bf16* to = x + row * ld + col;
    if (vectors)
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    else
      for (int c = 0; c < kAttentionChunk; ++c) to[c] = from[c];
  }
}

// Fragments of mma.m16n8k16 (ptx/mma.cuh) by ldmatrix: of A [16, 16], and of two B [16, 8] side by side. Each
// from a tile whose rows run along k, or (_t) whose rows are k's.
template <int Rows, int Cols>
__device__ inline void load_a(uint32_t (&a)[4], const AttentionTile<Rows, Cols>& tile, int m, int k) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  ldmatrix_x4(a, tile.at(m + lane % 16, k + lane / 16 * 8));
}
template <int Rows, int Cols>
__device__ inline void load_b(uint32_t (&b)[4], const AttentionTile<Rows, Cols>& tile, int k, int n) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  ldmatrix_x4(b, tile.at(n + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
}
template <int Rows, int Cols>
__device__ inline void load_b_t(uint32_t (&b)[4], const AttentionTile<Rows, Cols>& tile, int k, int n) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  ldmatrix_x4_trans(b, tile.at(k + lane % 16, n + lane / 16 * 8));
}

// S [16 M, 8 N] of a warp in fragments: s[m][n][2 r + c] is row 16 m + 8 r + lane / 4, column 8 n + 2 (lane %
// 4) + c.
template <int M, int N>
using AttentionFragments = float[M][N][4];

// S += X Y^T over Dim columns of the two tiles: rows x0.. of X, rows y0.. of Y.
template <int Dim, int M, int N, int XRows, int YRows>
__device__ inline void multiply_transposed(AttentionFragments<M, N>& s, const AttentionTile<XRows, Dim>& x,
                                           int x0, const AttentionTile<YRows, Dim>& y, int y0) {
#pragma unroll
  for (int k = 0; k < Dim; k += 16) {
    uint32_t a[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) load_a(a[m], x, x0 + 16 * m, k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t b[4];
      load_b(b, y, k, y0 + 8 * n);
      const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_bf16(s[m][n], a[m], left);
        mma_bf16(s[m][n + 1], a[m], right);
      }
    }
  }
}

// O += A Y for one A [16 M, 16]: rows y0.. and columns from y1 on of Y. N may be odd: the last load goes
// over.
template <int M, int N, int YRows, int YCols>
__device__ inline void multiply(AttentionFragments<M, N>& o, const uint32_t (&a)[M][4],
                                const AttentionTile<YRows, YCols>& y, int y0, int y1) {
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    uint32_t b[4];
    load_b_t(b, y, y0, y1 + 8 * n);
    const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
    for (int m = 0; m < M; ++m) {
      mma_bf16(o[m][n], a[m], left);
      if (n + 1 < N) mma_bf16(o[m][n + 1], a[m], right);
    }
  }
}

// Columns 16 k.. of S as the A of a product: the layouts agree but for the rounding.
template <int M, int N>
__device__ inline void to_a(uint32_t (&a)[M][4], const AttentionFragments<M, N>& s, int k) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      a[m][i] = pack_bf16(s[m][2 * k + i / 2][i % 2 * 2], s[m][2 * k + i / 2][i % 2 * 2 + 1]);
}

// Fragments, times `factor`, into rows m0.. and columns n0.. of a tile.
template <int M, int N, int Rows, int Cols>
__device__ inline void store_fragments(AttentionTile<Rows, Cols>& tile, const AttentionFragments<M, N>& s,
                                       int m0, int n0, float factor) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int r = 0; r < 2; ++r)
        *reinterpret_cast<uint32_t*>(tile.at(m0 + 16 * m + 8 * r + lane / 4, n0 + 8 * n + lane % 4 * 2)) =
            pack_bf16(s[m][n][2 * r] * factor, s[m][n][2 * r + 1] * factor);
}

// Over the four lanes that share a row of a fragment.
__device__ inline float quad_max(float x) {
  x = max(x, __shfl_xor_sync(kAllLanes, x, 1));
  return max(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

}  // namespace mimo::cuda
