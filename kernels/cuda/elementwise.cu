// Plain elementwise ops, by map.cuh; and column sums.
//
// Limit: bytes, each operand once. An SM's share of 4.8 TB/s is 36 bytes a ns, so some 30 KB have to be under
// way in it; a thread here has 64 bytes, 4 loads of 16. Not measured.
#include "kernels/elementwise.h"

#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/map.cuh"

namespace mimo {
namespace cuda {

template <class T>
struct FillMap {
  using Element = T;
  static constexpr int kInputs = 0;
  template <int N>
  using Held = float[N];
  Fill<T> op;
  template <int N>
  __device__ void load(float (&x)[N], const Piece&) const {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = op.value;
  }
  template <int N>
  __device__ void store(float (&x)[N], const Piece& p) const {
    store_piece(op.y[p.row], x, p);
  }
};

template <class T>
struct AddMap {
  using Element = T;
  static constexpr int kInputs = 2;
  template <int N>
  using Held = float[2][N];
  Add<T> op;
  template <int N>
  __device__ void load(float (&x)[2][N], const Piece& p) const {
    load_piece(x[0], op.a[p.row], p);
    load_piece(x[1], op.b[p.row], p);
  }
  template <int N>
  __device__ void store(float (&x)[2][N], const Piece& p) const {
#pragma unroll
    for (int i = 0; i < N; ++i) x[0][i] += x[1][i];
    store_piece(op.y[p.row], x[0], p);
  }
};

template <class T>
struct CopyMap {  // of bits: a NaN stays the one it was
  using Element = T;
  static constexpr int kInputs = 1;
  template <int N>
  using Held = std::conditional_t<N == 1, T, uint4>;
  Copy<T> op;
  template <int N>
  __device__ void load(Held<N>& x, const Piece& p) const {
    if (p.count == N) x = *reinterpret_cast<const Held<N>*>(op.x[p.row] + p.col);
  }
  template <int N>
  __device__ void store(Held<N>& x, const Piece& p) const {
    T* y = op.y[p.row] + p.col;
    if (p.count == N) {
      *reinterpret_cast<Held<N>*>(y) = x;
    } else {
      for (int i = 0; i < p.count; ++i) y[i] = op.x[p.row][p.col + i];
    }
  }
};

template <class T>
struct ScaleMap {
  using Element = T;
  static constexpr int kInputs = 1;
  template <int N>
  using Held = float[N];
  Scale<T> op;
  template <int N>
  __device__ void load(float (&x)[N], const Piece& p) const {
    load_piece(x, op.x, p);
  }
  template <int N>
  __device__ void store(float (&x)[N], const Piece& p) const {
    const float factor = static_cast<float>(*op.factor);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] *= factor;
    store_piece(op.x, x, p);
  }
};

template <class T, bool Accumulate>
struct ToAccMap {
  using Element = T;
  static constexpr int kInputs = Accumulate ? 2 : 1;
  template <int N>
  using Held = float[kInputs][N];
  ToAcc<T> op;
  template <int N>
  __device__ void load(float (&x)[kInputs][N], const Piece& p) const {
    load_piece(x[0], op.x, p);
    if constexpr (Accumulate) load_piece(x[1], op.y, p);
  }
  template <int N>
  __device__ void store(float (&x)[kInputs][N], const Piece& p) const {
    if constexpr (Accumulate) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[0][i] += x[1][i];
    }
    store_piece(op.y, x[0], p);
  }
};

template <class T>
struct FromAccMap {
  using Element = T;
  static constexpr int kInputs = 1;
  template <int N>
  using Held = float[N];
  FromAcc<T> op;
  template <int N>
  __device__ void load(float (&x)[N], const Piece& p) const {
    load_piece(x, op.x, p);
  }
  template <int N>
  __device__ void store(float (&x)[N], const Piece& p) const {
    store_piece(op.y, x, p);
  }
};

// Column sums: warp w of a block of 8 sums every eighth row of a slice of the rows, 32 N columns wide.
constexpr int kColumnWarps = 8;
template <int N>
struct AddColumnSumsShared {
  float sum[kColumnWarps][kWarp * N];
};

// partial[slice, c] = sum over the slice's rows of x[r, c]. Blocks: tiles of columns, within slices of
// `slice_rows` rows.
template <class T, int N>
__global__ void __launch_bounds__(kColumnWarps* kWarp)
    column_sums_of_slices(AddColumnSums<T> op, int64_t slice_rows, float* partial) {
  MIMO_SHARED(AddColumnSumsShared<N>, s);
  constexpr int kAtOnce = 4, kWidth = kWarp * N;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int tiles = static_cast<int>(ceil_div(op.cols, kWidth));
  const int slice = static_cast<int>(blockIdx.x) / tiles, tile = static_cast<int>(blockIdx.x) % tiles;
  const int c = tile * kWidth + lane * N;
  const int64_t begin = slice * slice_rows, end = min(begin + slice_rows, op.rows);
  float sum[N] = {};
  if (c < op.cols) {
    for (int64_t first = begin + warp; first < end; first += kAtOnce * kColumnWarps) {
      float x[kAtOnce][N];  // loads without a condition, so that none waits for another
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) load<N>(x[k], op.x[min(first + k * kColumnWarps, end - 1)] + c);
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += first + k * kColumnWarps < end ? x[k][i] : 0;
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) s.sum[warp][lane * N + i] = sum[i];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kWidth; i += kColumnWarps * kWarp) {
    if (tile * kWidth + i >= op.cols) break;
    float all = 0;
#pragma unroll
    for (int w = 0; w < kColumnWarps; ++w) all += s.sum[w][i];
    partial[int64_t{slice} * op.cols + tile * kWidth + i] = all;
  }
}

// How the rows are cut. Few are left to the second stage alone.
struct ColumnSlices {
  int64_t tiles, rows, count;  // rows: of a slice
  bool vectors, one_stage;
  template <class T>
  ColumnSlices(const Cuda& context, const AddColumnSums<T>& op) {
    constexpr int kBlocksOfSm = 8, kFewest = 32 * kColumnWarps;  // rows of a slice
    vectors = aligned(op.x) && op.cols % kVector<T> == 0;
    tiles = ceil_div(op.cols, kWarp * (vectors ? kVector<T> : 1));
    one_stage = op.rows <= 2 * kFewest || op.cols == 0;
    const int64_t most =
        std::max<int64_t>(1, int64_t{context.sms} * kBlocksOfSm / std::max<int64_t>(1, tiles));
    rows = std::max<int64_t>(kFewest, ceil_div(op.rows, most));
    count = ceil_div(op.rows, rows);
  }
};

}  // namespace cuda

template <class T>
void run(const Cuda& context, const Fill<T>& op) {
  cuda::map(context, cuda::FillMap<T>{op}, op.rows, op.cols, op.y.ld == op.cols, cuda::aligned(op.y));
}

template <class T>
void run(const Cuda& context, const Add<T>& op) {
  using cuda::aligned;
  cuda::map(context, cuda::AddMap<T>{op}, op.rows, op.cols,
            op.a.ld == op.cols && op.b.ld == op.cols && op.y.ld == op.cols,
            aligned(op.a) && aligned(op.b) && aligned(op.y));
}

template <class T>
void run(const Cuda& context, const Copy<T>& op) {
  cuda::map(context, cuda::CopyMap<T>{op}, op.rows, op.cols, op.x.ld == op.cols && op.y.ld == op.cols,
            cuda::aligned(op.x) && cuda::aligned(op.y));
}

template <class T>
void run(const Cuda& context, const Scale<T>& op) {
  cuda::map(context, cuda::ScaleMap<T>{op}, 1, op.n, true, cuda::aligned(op.x, 0));
}

template <class T>
void run(const Cuda& context, const ToAcc<T>& op) {
  const bool vectors = cuda::aligned(op.x, 0) && cuda::aligned(op.y, 0);
  if (op.accumulate)
    cuda::map(context, cuda::ToAccMap<T, true>{op}, 1, op.n, true, vectors);
  else
    cuda::map(context, cuda::ToAccMap<T, false>{op}, 1, op.n, true, vectors);
}

template <class T>
void run(const Cuda& context, const FromAcc<T>& op) {
  cuda::map(context, cuda::FromAccMap<T>{op}, 1, op.n, true,
            cuda::aligned(op.x, 0) && cuda::aligned(op.y, 0));
}

template <class T>
int64_t workspace(const Cuda& context, const AddColumnSums<T>& op) {
  const cuda::ColumnSlices slices(context, op);
  return slices.one_stage ? 0 : slices.count * op.cols * int64_t{sizeof(float)};
}

template <class T>
void run(const Cuda& context, const AddColumnSums<T>& op) {
  using namespace cuda;
  const ColumnSlices slices(context, op);
  if (slices.one_stage) return add_column_sums(context, op.rows, op.cols, op.x.data, op.x.ld, op.y);
  float* partial = static_cast<float*>(context.ws.data);
  const dim3 grid(static_cast<unsigned>(slices.tiles * slices.count));
  constexpr int kThreads = kColumnWarps * kWarp, N = kVector<T>;
  if (slices.vectors)
    cuda::launch<column_sums_of_slices<T, N>, AddColumnSumsShared<N>>(context, grid, kThreads, op,
                                                                      slices.rows, partial);
  else
    cuda::launch<column_sums_of_slices<T, 1>, AddColumnSumsShared<1>>(context, grid, kThreads, op,
                                                                      slices.rows, partial);
  add_column_sums(context, slices.count, op.cols, partial, op.cols, op.y);
}

MIMO_CUDA_KERNEL(Fill);
MIMO_CUDA_KERNEL(Add);
MIMO_CUDA_KERNEL(Copy);
MIMO_CUDA_KERNEL(Scale);
MIMO_CUDA_KERNEL(ToAcc);
MIMO_CUDA_KERNEL(FromAcc);
MIMO_CUDA_KERNEL_WITH_WORKSPACE(AddColumnSums);

}  // namespace mimo
