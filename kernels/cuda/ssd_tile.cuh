// Tiles of the SSD kernels and their products. A warp holds a strip of 16 rows of a result in registers:
// acc[n][e] is row g + 8 (e / 2), column 8 n + 2 t + e % 2, with g = lane / 4, t = lane % 4 (the fragment of
// mma.m16n8k16). bf16 multiplies on tensor cores; float, which is there to be right and not to be fast, by
// plain multiply-adds from shared memory into the same registers, so that the kernels are one text.
//
// Right operands are tiles in shared memory, as [n, k] or as [k, n]. Left operands, 16 x K, are strips of a
// tile [m, k] (SsdRows), of a tile [k, m] (SsdColumns), such with weights (SsdWeighted), or results held in
// registers (SsdHeld).
#pragma once
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mma.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo::cuda {

// Rows of a chunk; columns of the state at a time; a tile's rows are padded by 16 bytes against bank
// conflicts. float, of twice the bytes, has half the rows and columns.
template <class T>
struct SsdTile {
  static constexpr int rows = 128 / sizeof(T), slice = 128 / sizeof(T), pad = 16 / sizeof(T);
  static constexpr int warps = rows / 16, threads = rows * 2;
};
template <class T, int Cols>
constexpr int ssd_ld = Cols + SsdTile<T>::pad;

struct SsdLane {
  int warp, lane, g, t;
  __device__ SsdLane()
      : warp(static_cast<int>(threadIdx.x) / kWarp),
        lane(static_cast<int>(threadIdx.x) % kWarp),
        g(lane / 4),
        t(lane % 4) {}
  __device__ int row(int e) const { return 16 * warp + g + e / 2 * 8; }  // of element e
  __device__ int column(int n, int e) const { return 8 * n + 2 * t + e % 2; }
};

// The lane's row for ldmatrix: the four 8 x 8 matrices are (0, 0), (8, 0), (0, 8), (8, 8), or with the middle
// two exchanged.
__device__ inline int ssd_low(int lane) { return lane % 8 + lane / 8 % 2 * 8; }
__device__ inline int ssd_high(int lane) { return lane / 16 * 8; }

template <class T>
struct SsdRows {
  const T* at;  // left[m][k] = at[m * ld + k]
  int ld;
  __device__ void fragment(const SsdLane& l, int k, uint32_t (&a)[4]) const {
    ldmatrix_x4(a, at + ssd_low(l.lane) * ld + 16 * k + ssd_high(l.lane));
  }
  __device__ float element(int m, int k) const { return at[m * ld + k]; }
};

template <class T>
struct SsdColumns {
  const T* at;  // left[m][k] = at[k * ld + m]
  int ld;
  __device__ void fragment(const SsdLane& l, int k, uint32_t (&a)[4]) const {
    ldmatrix_x4_trans(a, at + (16 * k + l.lane % 8 + ssd_high(l.lane)) * ld + l.lane / 8 % 2 * 8);
  }
  __device__ float element(int m, int k) const { return at[k * ld + m]; }
};

template <class T>
struct SsdWeighted {
  SsdColumns<T> left;  // times w[k]
  const float* w;
  __device__ void fragment(const SsdLane& l, int k, uint32_t (&a)[4]) const {
    left.fragment(l, k, a);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* v = w + 16 * k + 2 * l.t + i / 2 * 8;
      a[i] = pack_bf16(low_bf16(a[i]) * v[0], high_bf16(a[i]) * v[1]);
    }
  }
  __device__ float element(int m, int k) const { return w[k] * left.element(m, k); }
};

// A result [16, 8 NT] as a left operand: bf16 repacks its registers, float goes through `scratch`, [16, 8 NT]
// of the warp's own.
template <class T, int NT>
struct SsdHeld {
  uint32_t words[NT / 2][4];
  __device__ SsdHeld(const SsdLane&, const float (&acc)[NT][4], T*) {
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      words[n / 2][n % 2 * 2] = pack_bf16(acc[n][0], acc[n][1]);
      words[n / 2][n % 2 * 2 + 1] = pack_bf16(acc[n][2], acc[n][3]);
    }
  }
  __device__ void fragment(const SsdLane&, int k, uint32_t (&a)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = words[k][i];
  }
};
template <int NT>
struct SsdHeld<float, NT> {
  const float* at;
  __device__ SsdHeld(const SsdLane& l, const float (&acc)[NT][4], float* scratch) : at(scratch) {
    __syncwarp();
    for (int n = 0; n < NT; ++n)
      for (int e = 0; e < 4; ++e) scratch[(l.g + e / 2 * 8) * 8 * NT + l.column(n, e)] = acc[n][e];
    __syncwarp();
  }
  __device__ float element(int m, int k) const { return at[m * 8 * NT + k]; }
};
// Shared memory for SsdHeld: a chunk's rows by its columns.
template <class T>
struct SsdScratch {
  __device__ T* strip(int) { return nullptr; }
};
template <>
struct SsdScratch<float> {
  static constexpr int Q = SsdTile<float>::rows;
  float data[Q * Q];
  __device__ float* strip(int warp) { return data + 16 * warp * Q; }
};

// What part of a product is wanted, in 16s: columns [n_begin, n_end) and inner indices [k_begin, k_end).
struct SsdPart {
  int n_begin = 0, n_end = 1 << 20, k_begin = 0, k_end = 1 << 20;
};

// acc += left right over 16 K inner indices; right is [n, k], or [k, n] if Transposed.
template <int K, bool Transposed, int NT, class T, class Left>
__device__ inline void ssd_product(const SsdLane& l, float (&acc)[NT][4], const Left& left, const T* right,
                                   int ld, SsdPart part = {}) {
  static_assert(NT % 2 == 0);
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (k < part.k_begin || k >= part.k_end) continue;
      uint32_t a[4];
      left.fragment(l, k, a);
#pragma unroll
      for (int n = 0; n < NT / 2; ++n) {
        if (n < part.n_begin || n >= part.n_end) continue;
        uint32_t b[4];
        if constexpr (Transposed)
          ldmatrix_x4_trans(b, right + (16 * k + ssd_low(l.lane)) * ld + 16 * n + ssd_high(l.lane));
        else
          ldmatrix_x4(b, right + (16 * n + l.lane % 8 + ssd_high(l.lane)) * ld + 16 * k + l.lane / 8 % 2 * 8);
        const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
        mma_bf16(acc[2 * n], a, b0);
        mma_bf16(acc[2 * n + 1], a, b1);
      }
    }
  } else {
    // Sums of 16 terms are added up, as on tensor cores: a long plain sum would err by more than the CPU's.
#pragma unroll 1
    for (int k = part.k_begin; k < K && k < part.k_end; ++k) {
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        if (n / 2 < part.n_begin || n / 2 >= part.n_end) continue;
        float sum[4] = {};
#pragma unroll 4
        for (int i = 16 * k; i < 16 * (k + 1); ++i) {
          const float a[2] = {left.element(l.g, i), left.element(l.g + 8, i)};
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int column = l.column(n, e);
            sum[e] += a[e / 2] * (Transposed ? right[i * ld + column] : right[column * ld + i]);
          }
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) acc[n][e] += sum[e];
      }
    }
  }
}

template <int NT>
__device__ inline void ssd_clear(float (&acc)[NT][4]) {
#pragma unroll
  for (int n = 0; n < NT; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) acc[n][e] = 0;
}

// Two neighbouring elements.
__device__ inline void ssd_store_pair(float* p, float x, float y) {
  *reinterpret_cast<float2*>(p) = make_float2(x, y);
}
__device__ inline void ssd_store_pair(bf16* p, float x, float y) {
  *reinterpret_cast<uint32_t*>(p) = pack_bf16(x, y);
}

// A matrix in global memory. vectors: its rows, and every part of them that a head or a group owns, are whole
// pieces of 16 bytes on 16-byte boundaries.
template <class T>
struct SsdMatrix {
  T* data;
  int64_t ld;
  bool vectors;
};
template <class T>
SsdMatrix<T> ssd_matrix(const Rows<T>& x, int part) {
  return {x.data, x.ld, aligned(x) && part % (16 / static_cast<int>(sizeof(T))) == 0};
}

// The block copies [rows, cols] from `from` into the tile [tile_rows, width] of row stride ssd_ld<Cols>,
// width at most Cols, with zeros around. It has arrived after the next wait for copies and a barrier.
template <int Cols, class T>
__device__ inline void ssd_load(T* tile, int tile_rows, int width, const T* from, int64_t ld, int rows,
                                int cols, bool vectors) {
  constexpr int V = 16 / sizeof(T), per_row = Cols / V;
  for (int i = static_cast<int>(threadIdx.x); i < tile_rows * per_row; i += static_cast<int>(blockDim.x)) {
    const int r = i / per_row, c = i % per_row * V;
    if (c >= width) continue;
    T* to = tile + r * ssd_ld<T, Cols> + c;
    if (vectors) {
      const bool valid = r < rows && c < cols;
      cp_async_16(to, from + (valid ? r * ld + c : 0), valid);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) to[v] = r < rows && c + v < cols ? from[r * ld + c + v] : T(0.0f);
    }
  }
}

// A record of whole 16-byte pieces.
template <class Record>
__device__ inline void ssd_load_record(Record* to, const Record* from) {
  static_assert(sizeof(Record) % 16 == 0);
  for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(sizeof(Record) / 16);
       i += static_cast<int>(blockDim.x))
    cp_async_16(reinterpret_cast<char*>(to) + 16 * i, reinterpret_cast<const char*>(from) + 16 * i);
}

// The warp's strip of a result to rows [16 warp, ..) of `to`, by way of its own strip of the tile [.., Cols],
// so that rows leave in pieces of 16 bytes.
template <int Cols, int NT, class T>
__device__ inline void ssd_store(const SsdLane& l, const float (&acc)[NT][4], T* tile, const SsdMatrix<T>& to,
                                 int64_t row, int64_t column, int rows, int cols) {
  static_assert(NT * 8 == Cols);
  constexpr int V = 16 / sizeof(T), per_row = Cols / V;
  T* strip = tile + 16 * l.warp * ssd_ld<T, Cols>;
  __syncwarp();
#pragma unroll
  for (int n = 0; n < NT; ++n)
#pragma unroll
    for (int e = 0; e < 4; e += 2)
      ssd_store_pair(strip + (l.g + e / 2 * 8) * ssd_ld<T, Cols> + l.column(n, 0), acc[n][e], acc[n][e + 1]);
  __syncwarp();
  for (int i = l.lane; i < 16 * per_row; i += kWarp) {
    const int r = i / per_row, c = i % per_row * V;
    if (16 * l.warp + r >= rows || c >= cols) continue;
    const T* from = strip + r * ssd_ld<T, Cols> + c;
    T* at = to.data + (row + 16 * l.warp + r) * to.ld + column + c;
    if (to.vectors)
      *reinterpret_cast<uint4*>(at) = *reinterpret_cast<const uint4*>(from);
    else
      for (int v = 0; v < V && c + v < cols; ++v) at[v] = from[v];
  }
}

// e^x for x <= 0, in the precision of T.
template <class T>
__device__ inline float ssd_exp(float x) {
  if constexpr (sizeof(T) == 2)
    return exp2_fast(x * 1.44269504f);
  else
    return expf(x);
}

}  // namespace mimo::cuda
