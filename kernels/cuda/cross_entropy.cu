// Vocab-parallel cross entropy: a block a row, limited by bytes. Max and Sum read the logits once, Grad reads
// and writes them once and only writes rows without a label. The next limit is exponentials: Sum of bf16 at
// an H200's 4.8 TB/s asks for 10 a clock and SM of the 16 there are. A chunk of fewer rows than SMs leaves
// SMs idle. Rows may begin anywhere (a vocabulary cut in three has odd strides): the elements before the
// first 16-byte boundary and behind the last go one by one, the rest in vectors, four of them under way in
// every thread. Max compares vectors by their largest element and looks for the column in the best one
// afterwards: two instructions an element instead of four. Not measured.
#include "kernels/cross_entropy.h"

#include <climits>

#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo {
namespace cuda {

constexpr int kEntropyThreads = 512, kEntropyFewThreads = 128;  // of a long row, and of a short one
constexpr int64_t kEntropyLong = 16384;                         // columns
constexpr int kEntropyVectors = 4;

struct EntropyShared {
  float value[kWarp];
  int index[kWarp];
};

// Calls f(column, values) for all elements of a row; values are a vector or one element, float[1], zeros
// unless Read. The columns of a thread ascend.
template <bool Read, class T, class F>
__device__ inline void entropy_for_each(const T* row, int cols, F&& f) {
  constexpr int N = kVector<T>;
  const int before = static_cast<int>(-(reinterpret_cast<uintptr_t>(row) / sizeof(T)) % N);
  const int head = min(before, cols), tail = head + (cols - head) / N * N;
  const auto single = [&](int c) {
    float x[1] = {};
    if (Read) load<1>(x, row + c);
    f(c, x);
  };
  const int thread = threadIdx.x, step = static_cast<int>(blockDim.x) * N;
  if (thread < head) single(thread);
  for (int first = head + thread * N; first < tail; first += kEntropyVectors * step) {
    float x[kEntropyVectors][N] = {};
#pragma unroll
    for (int k = 0; k < kEntropyVectors; ++k)
      if (Read && first + k * step < tail) load<N>(x[k], row + first + k * step);
#pragma unroll
    for (int k = 0; k < kEntropyVectors; ++k)
      if (first + k * step < tail) f(first + k * step, x[k]);
  }
  if (tail + thread < cols) single(tail + thread);
}

__device__ inline float entropy_exp(float x) { return exp2_fast(x * 1.44269504088896341f); }

// The largest x of the block, to all threads.
template <class A>
__device__ inline A entropy_block_max(A x, A* scratch) {
  const int lane = threadIdx.x % kWarp, warps = static_cast<int>(blockDim.x) / kWarp;
  x = warp_max(x);
  if (lane == 0) scratch[threadIdx.x / kWarp] = x;
  __syncthreads();
  return warp_max(scratch[lane < warps ? lane : 0]);
}

template <class T>
__global__ void __launch_bounds__(kEntropyThreads) cross_entropy_max(CrossEntropyMax<T> op) {
  MIMO_SHARED(EntropyShared, s);
  const int cols = static_cast<int>(op.cols);
  const T* row = op.logits[blockIdx.x];
  float mine = -INFINITY;
  int best = 0;  // the column where the thread's best vector begins
  entropy_for_each<true>(row, cols, [&](int c, const auto& x) {
    float largest = x[0];
    for (float v : x) largest = fmaxf(largest, v);
    if (largest > mine) mine = largest, best = c;
  });
  const float largest = entropy_block_max(mine, s.value);
  if (threadIdx.x == 0) op.max[blockIdx.x] = largest;
  if (!op.arg) return;
  int index = INT_MAX;
  if (mine == largest)
    for (int c = min(best + kVector<T>, cols) - 1; c >= best; --c)
      if (static_cast<float>(row[c]) == largest) index = c;
  index = -entropy_block_max(-index, s.index);
  if (threadIdx.x == 0) op.arg[blockIdx.x] = static_cast<int32_t>(op.first) + (index == INT_MAX ? 0 : index);
}

template <class T>
__global__ void __launch_bounds__(kEntropyThreads) cross_entropy_sum(CrossEntropySum<T> op) {
  MIMO_SHARED(EntropyShared, s);
  const T* row = op.logits[blockIdx.x];
  const float max = op.max[blockIdx.x];
  float sum = 0;
  entropy_for_each<true>(row, static_cast<int>(op.cols), [&](int, const auto& x) {
    float vector = 0;  // on its own: an eighth or a quarter of the roundings
    for (float v : x) vector += entropy_exp(v - max);
    sum += vector;
  });
  sum = block_sum(sum, s.value);
  if (threadIdx.x != 0) return;
  const int64_t c = op.labels[blockIdx.x] - op.first;
  op.sum[blockIdx.x] = sum;
  op.target[blockIdx.x] = c >= 0 && c < op.cols ? static_cast<float>(row[c]) - max : 0;
}

template <class T>
__global__ void __launch_bounds__(kEntropyThreads) cross_entropy_grad(CrossEntropyGrad<T> op) {
  const int cols = static_cast<int>(op.cols);
  const int64_t label = op.labels[blockIdx.x], at = label - op.first;
  T* row = op.logits[blockIdx.x];
  if (label < 0) {
    entropy_for_each<false>(row, cols, [&](int c, const auto& zeros) { store(row + c, zeros); });
  } else {
    const float max = op.max[blockIdx.x], dloss = *op.dloss, scale = dloss / op.sum[blockIdx.x];
    entropy_for_each<true>(row, cols, [&](int c, auto& x) {
      for (float& v : x) v = entropy_exp(v - max) * scale;
      constexpr int n = sizeof(x) / sizeof(float);
      if (at >= c && at < c + n)
        for (int k = 0; k < n; ++k) x[k] -= c + k == at ? dloss : 0;
      store(row + c, x);
    });
  }
  if (threadIdx.x == 0 && op.loss)
    op.loss[blockIdx.x] = label < 0 ? 0 : logf(op.sum[blockIdx.x]) - op.target[blockIdx.x];
}

// --- over rows

constexpr int kEntropyRows = 256;  // of a block

struct EntropyLossShared {
  double sum[kWarp];
};

template <class T>
__global__ void __launch_bounds__(kEntropyRows) cross_entropy_arg(CrossEntropyArg<T> op) {
  const int64_t row = int64_t{blockIdx.x} * kEntropyRows + threadIdx.x;
  if (row >= op.rows) return;
  const float max = op.max[row];
  if (op.here[row] != max && max == max) op.arg[row] = INT_MAX;
}

template <class T>
__global__ void __launch_bounds__(kEntropyRows) cross_entropy_loss(CrossEntropyLoss<T> op, double* parts) {
  MIMO_SHARED(EntropyLossShared, s);
  const int64_t row = int64_t{blockIdx.x} * kEntropyRows + threadIdx.x;
  double loss = 0;
  if (row < op.rows && op.labels[row] >= 0)
    loss = log(static_cast<double>(op.sum[row])) - static_cast<double>(op.target[row]);
  loss = block_sum(loss, s.sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = loss;
}
// One warp.
template <class T>
__global__ void __launch_bounds__(kWarp)
    cross_entropy_loss_total(CrossEntropyLoss<T> op, int64_t count, const double* parts) {
  double loss = 0;
  for (int64_t i = threadIdx.x; i < count; i += kWarp) loss += parts[i];
  loss = warp_sum(loss);
  if (threadIdx.x != 0) return;
  *op.result += loss;
  *op.value = static_cast<float>(loss);
}

template <auto Kernel, class Shared, class Op>
void entropy_launch(const Cuda& context, const Op& op) {
  cuda::launch<Kernel, Shared>(context, dim3(static_cast<unsigned>(op.rows)),
                               op.cols < kEntropyLong ? kEntropyFewThreads : kEntropyThreads, op);
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const CrossEntropyMax<T>& op) {
  cuda::entropy_launch<cuda::cross_entropy_max<T>, cuda::EntropyShared>(context, op);
}

template <class T>
void run(const Cuda& context, const CrossEntropyArg<T>& op) {
  using namespace cuda;
  cuda::launch<cross_entropy_arg<T>>(context, dim3(static_cast<unsigned>(ceil_div(op.rows, kEntropyRows))),
                                     kEntropyRows, op);
}

template <class T>
void run(const Cuda& context, const CrossEntropySum<T>& op) {
  cuda::entropy_launch<cuda::cross_entropy_sum<T>, cuda::EntropyShared>(context, op);
}

template <class T>
int64_t workspace(const Cuda&, const CrossEntropyLoss<T>& op) {
  return cuda::ceil_div(op.rows, cuda::kEntropyRows) * int64_t{sizeof(double)};
}
template <class T>
void run(const Cuda& context, const CrossEntropyLoss<T>& op) {
  using namespace cuda;
  double* parts = static_cast<double*>(context.ws.data);
  const int64_t blocks = ceil_div(op.rows, kEntropyRows);
  cuda::launch<cross_entropy_loss<T>, EntropyLossShared>(context, dim3(static_cast<unsigned>(blocks)),
                                                         kEntropyRows, op, parts);
  cuda::launch<cross_entropy_loss_total<T>>(context, dim3(1), kWarp, op, blocks,
                                            static_cast<const double*>(parts));
}

template <class T>
void run(const Cuda& context, const CrossEntropyGrad<T>& op) {
  cuda::entropy_launch<cuda::cross_entropy_grad<T>, cuda::NoShared>(context, op);
}

MIMO_CUDA_KERNEL(CrossEntropyMax);
MIMO_CUDA_KERNEL(CrossEntropyArg);
MIMO_CUDA_KERNEL(CrossEntropySum);
MIMO_CUDA_KERNEL_WITH_WORKSPACE(CrossEntropyLoss);
MIMO_CUDA_KERNEL(CrossEntropyGrad);

}  // namespace mimo
