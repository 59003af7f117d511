// RADIO's position embedding, resized from its table. Places come from exact integers,
//   src = n / 2m, n = max((2i + 1) grid - m, 0), m = max(h, w),
// so both directions agree on who touches whom.
//
// Forward, a warp a row: x, out, and four table rows a patch, which L2 serves in part: neighbours share them
// where the table is stretched, and all images of one size do. Bytes limit it.
// Backward, in gather form, a warp for a cell of the table and two vectors a lane of its columns: in every
// image an interval of rows and one of columns touch the cell, found by division, 32 images at once. Their
// rows of dout are summed in order of images, rows, columns. A row of dout is read by up to four cells, from
// L2 mostly; cells that no patch touches leave at once. Not measured.
#include "kernels/position_embedding.h"

#include "kernels/cuda/accumulate.cuh"
#include "kernels/cuda/images.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo {
namespace cuda {

constexpr int kPositionThreads = 256, kPositionWarps = kPositionThreads / kWarp;
constexpr int kPositionVectors = 2;  // a lane of the backward

__device__ inline int position_numerator(int i, int m, int grid) { return max((2 * i + 1) * grid - m, 0); }

// The table's cells on both sides of place i, and their weights.
struct PositionSource {
  int low, high;
  float low_weight, high_weight;
  __device__ PositionSource(int i, int m, int grid) {
    const int n = position_numerator(i, m, grid);
    low = n / (2 * m), high = min(low + 1, grid - 1);
    high_weight = static_cast<float>(n - low * 2 * m) / static_cast<float>(2 * m);
    low_weight = 1 - high_weight;
  }
};

template <class T, int N>
__global__ void __launch_bounds__(kPositionThreads) position_embedding_forward(PositionEmbedding<T> op) {
  const int64_t row = int64_t{blockIdx.x} * kPositionWarps + threadIdx.x / kWarp;
  if (row >= op.rows) return;
  const int i = image_of(row, op.in.cu, op.in.images);
  const int h = op.in.sizes[2 * i], w = op.in.sizes[2 * i + 1], m = max(h, w),
            at = static_cast<int>(row - op.in.cu[i]);
  const PositionSource y(at / w, m, op.in.grid), x(at % w, m, op.in.grid);
  const auto cell = [&](int table_y, int table_x) {
    return op.table + (int64_t{table_y} * op.in.grid + table_x) * op.in.cols;
  };
  const T *t00 = cell(y.low, x.low), *t01 = cell(y.low, x.high);
  const T *t10 = cell(y.high, x.low), *t11 = cell(y.high, x.high);
  for (int c = threadIdx.x % kWarp * N; c < op.in.cols; c += kWarp * N) {
    float v[N] = {}, v00[N], v01[N], v10[N], v11[N];
    if (op.x) load<N>(v, op.x[row] + c);
    load<N>(v00, t00 + c);
    load<N>(v01, t01 + c);
    load<N>(v10, t10 + c);
    load<N>(v11, t11 + c);
#pragma unroll
    for (int k = 0; k < N; ++k)
      v[k] += y.low_weight * (x.low_weight * v00[k] + x.high_weight * v01[k]) +
              y.high_weight * (x.low_weight * v10[k] + x.high_weight * v11[k]);
    store<N>(op.out[row] + c, v);
  }
}

// The places [first, last] of an axis of `size`, resized as m, with |src - cell| < 1.
struct PositionInterval {
  int first, last;
  __device__ PositionInterval(int cell, int m, int size, int grid) {
    const int below = (2 * cell - 1) * m - grid, above = (2 * cell + 3) * m - grid;  // of src, times 2 grid
    first = below < 0 ? 0 : below / (2 * grid) + 1;
    last = min(above > 0 ? (above - 1) / (2 * grid) : -1, size - 1);
  }
};
// Of such a place: the sum of the weights it gives the cell. Behind the last cell's centre it gives that all.
__device__ inline float position_weight(int i, int m, int cell, int grid) {
  const int distance = position_numerator(i, m, grid) - 2 * m * cell;
  if (distance > 0 && cell == grid - 1) return 1;
  return static_cast<float>(2 * m - abs(distance)) / static_cast<float>(2 * m);
}

template <class T, int N>
__global__ void __launch_bounds__(kPositionThreads, 4)
    position_embedding_backward(PositionEmbeddingBackward<T> op) {
  const int cell = static_cast<int>(blockIdx.x) * kPositionWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (cell >= op.in.grid * op.in.grid) return;
  const int cell_y = cell / op.in.grid, cell_x = cell % op.in.grid, lane = threadIdx.x % kWarp;
  const int c = (static_cast<int>(blockIdx.y) * kPositionVectors * kWarp + lane) * N;
  float sum[kPositionVectors][N] = {};
  bool touched = false;
  for (int base = 0; base < op.in.images; base += kWarp) {
    const int i = base + lane, h = i < op.in.images ? op.in.sizes[2 * i] : 0,
              w = i < op.in.images ? op.in.sizes[2 * i + 1] : 0;
    const int first_row = i < op.in.images ? op.in.cu[i] : 0, m = max(h, w);
    const PositionInterval y(cell_y, m, h, op.in.grid), x(cell_x, m, w, op.in.grid);
    unsigned images = __ballot_sync(kAllLanes, y.first <= y.last && x.first <= x.last);
    for (touched |= images != 0; images; images &= images - 1) {
      const int from = __ffs(static_cast<int>(images)) - 1;
      const auto of_image = [&](int value) { return __shfl_sync(kAllLanes, value, from); };
      const int image_m = of_image(m), image_w = of_image(w), row = of_image(first_row);
      const int y_last = of_image(y.last), x_first = of_image(x.first), x_last = of_image(x.last);
      for (int py = of_image(y.first); py <= y_last; ++py) {
        const float weight_y = position_weight(py, image_m, cell_y, op.in.grid);
        for (int px = x_first; px <= x_last; ++px) {
          const float weight = weight_y * position_weight(px, image_m, cell_x, op.in.grid);
          const T* dout = op.dout[int64_t{row} + py * image_w + px];
#pragma unroll
          for (int k = 0; k < kPositionVectors; ++k) {
            if (c + k * kWarp * N >= op.in.cols) continue;
            float d[N];
            load<N>(d, dout + c + k * kWarp * N);
#pragma unroll
            for (int j = 0; j < N; ++j) sum[k][j] += weight * d[j];
          }
        }
      }
    }
  }
  if (!touched) return;
#pragma unroll
  for (int k = 0; k < kPositionVectors; ++k)
    if (c + k * kWarp * N < op.in.cols)
      add_floats<N>(op.dtable + int64_t{cell} * op.in.cols + c + k * kWarp * N, sum[k]);
}

template <class T, int N>
void position_backward(const Cuda& context, const PositionEmbeddingBackward<T>& op) {
  const dim3 grid(static_cast<unsigned>(ceil_div(int64_t{op.in.grid} * op.in.grid, kPositionWarps)),
                  static_cast<unsigned>(ceil_div(op.in.cols, kPositionVectors * kWarp * N)));
  cuda::launch<position_embedding_backward<T, N>>(context, grid, kPositionThreads, op);
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const PositionEmbedding<T>& op) {
  using namespace cuda;
  constexpr int N = kVector<T>;
  const dim3 grid(static_cast<unsigned>(ceil_div(op.rows, kPositionWarps)));
  if (op.in.cols % N == 0 && aligned(op.table, op.in.cols) && aligned(op.x) && aligned(op.out))
    cuda::launch<position_embedding_forward<T, N>>(context, grid, kPositionThreads, op);
  else
    cuda::launch<position_embedding_forward<T, 1>>(context, grid, kPositionThreads, op);
}

template <class T>
void run(const Cuda& context, const PositionEmbeddingBackward<T>& op) {
  using namespace cuda;
  constexpr int N = kVector<T>;
  if (op.in.images == 0) return;
  if (op.in.cols % N == 0 && aligned(op.dout) && aligned(op.dtable, op.in.cols))
    position_backward<T, N>(context, op);
  else
    position_backward<T, 1>(context, op);
}

MIMO_CUDA_KERNEL(PositionEmbedding);
MIMO_CUDA_KERNEL(PositionEmbeddingBackward);

}  // namespace mimo
