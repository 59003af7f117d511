// Kernels that compute each element on its own: y = f(x) over [rows, cols]. A thread has a few pieces of N
// elements, all loaded before the first is stored, so that several accesses are under way at once.
//
// A map F gives
//   using Element                        the type of which N elements are 16 bytes
//   static constexpr int kInputs         operands that it reads
//   template <int N> using Held          what it keeps of a piece: float[kInputs][N]
//   template <int N> void load(Held<N>& x, const Piece& p) const
//   template <int N> void store(Held<N>& x, const Piece& p) const
#pragma once
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo::cuda {

constexpr int kMapThreads = 256;
struct Piece {
  int64_t row, col;
  int count;  // elements from col on: N, fewer at the end of a row, 0 behind the last row
};

template <int N, class T>
__device__ inline void load_piece(float (&x)[N], const T* row, const Piece& p) {
  if (p.count == N) {
    load<N>(x, row + p.col);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (i < p.count) x[i] = static_cast<float>(row[p.col + i]);
  }
}
template <int N, class T>
__device__ inline void store_piece(T* row, const float (&x)[N], const Piece& p) {
  if (p.count == N) {
    store<N>(row + p.col, x);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (i < p.count) row[p.col + i] = to_type<T>(x[i]);
  }
}

// Pieces of a block, from the first one on; a row has `per_row`, below 2^31 where there are several rows.
template <int N>
struct Pieces {
  int64_t rows, cols, per_row, row, first;  // the first piece is number `first` of `row`

  __device__ Pieces(int64_t begin, int64_t r, int64_t c)
      : rows(r),
        cols(c),
        per_row(ceil_div(c, N)),
        row(r > 1 ? begin / per_row : 0),
        first(begin - row * per_row) {}
  __device__ Piece operator[](unsigned i) const {
    const unsigned down = rows > 1 ? (static_cast<unsigned>(first) + i) / static_cast<unsigned>(per_row) : 0;
    const int64_t col = (first + i - down * per_row) * N, left = row + down < rows ? cols - col : 0;
    return {row + down, col, static_cast<int>(left < N ? (left > 0 ? left : 0) : N)};
  }
};

template <class F>
constexpr int kMapPieces = F::kInputs > 1 ? 2 : 4;

// Full: all pieces have N elements. Then no branch stands between the loads, nor makes one wait for the last.
template <class F, int N, bool Full>
__device__ inline void map_pieces(const F& f, const Pieces<N>& pieces) {
  constexpr int V = kMapPieces<F>;
  typename F::template Held<N> x[V];
  Piece piece[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    piece[v] = pieces[threadIdx.x + v * kMapThreads];
    if constexpr (Full) piece[v].count = N;
    if (Full || piece[v].count > 0) f.template load<N>(x[v], piece[v]);
  }
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (Full || piece[v].count > 0) f.template store<N>(x[v], piece[v]);
}

template <class F, int N>
__global__ void __launch_bounds__(kMapThreads) map_elements(F f, int64_t rows, int64_t cols) {
  constexpr int64_t kPieces = kMapThreads * kMapPieces<F>;
  const Pieces<N> pieces(blockIdx.x * kPieces, rows, cols);
  const int64_t all_full = rows == 1 ? cols / N : cols % N == 0 ? rows * pieces.per_row : 0;
  if ((blockIdx.x + int64_t{1}) * kPieces <= all_full)
    map_pieces<F, N, true>(f, pieces);
  else
    map_pieces<F, N, false>(f, pieces);
}

// dense: rows lie end to end in every operand, so that they can be one row.
template <class F>
void map(const Cuda& context, const F& f, int64_t rows, int64_t cols, bool dense, bool vectors_aligned) {
  if (rows == 0 || cols == 0) return;
  if (dense) cols *= rows, rows = 1;
  constexpr int N = kVector<typename F::Element>;
  const auto blocks = [&](int n) {
    return dim3(static_cast<unsigned>(ceil_div(rows * ceil_div(cols, n), kMapThreads * kMapPieces<F>)));
  };
  if (vectors_aligned)
    cuda::launch<map_elements<F, N>>(context, blocks(N), kMapThreads, f, rows, cols);
  else
    cuda::launch<map_elements<F, 1>>(context, blocks(1), kMapThreads, f, rows, cols);
}

}  // namespace mimo::cuda
