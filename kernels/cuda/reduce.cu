// Sums of squares over many tensors. Each block takes every so many-th chunk of the tensors and leaves one
// partial sum; a block of its own adds these up.
//
// Limit: bytes, each element read once: four accesses of 16 bytes under way in a thread. In double: an SM
// does 64 products a clock, where memory brings some 5 floats. Not measured.
#include "kernels/reduce.h"

#include "kernels/cuda/chunks.cuh"
#include "kernels/cuda/vector.cuh"

namespace mimo {
namespace cuda {

constexpr int kSquaresThreads = 256, kSquaresAtOnce = 4;
template <class T>
constexpr int kSquaresChunk = 2 * kSquaresThreads* kSquaresAtOnce* kVector<T>;
struct SumSquaresShared {
  double scratch[kWarp];
};
struct SquaresPartial {
  double sum, non_finite;
};

struct CountOfTensor {
  const int64_t* n;
  __device__ int64_t operator()(int i) const { return n[i]; }
};

// What a thread has summed.
struct Squares {
  double sum[4] = {};  // several, so that none waits for the last
  int non_finite = 0;
  __device__ void add(float x, int i) {
    const bool finite = fabsf(x) <= 3.402823466e38f;
    const double d = finite ? x : 0.f;
    sum[i % 4] = fma(d, d, sum[i % 4]);
    non_finite += !finite;
  }
};

template <class T>
__device__ inline void add_squares(Squares& squares, const T* x, int n) {
  constexpr int N = kVector<T>, U = kSquaresAtOnce, kStep = kSquaresThreads * N;
  int begin = 0;
  if (reinterpret_cast<uintptr_t>(x) % 16 == 0) {
    for (; begin + U * kStep <= n; begin += U * kStep) {
      float v[U][N];
#pragma unroll
      for (int u = 0; u < U; ++u) load<N>(v[u], x + begin + u * kStep + static_cast<int>(threadIdx.x) * N);
#pragma unroll
      for (int u = 0; u < U; ++u)
#pragma unroll
        for (int i = 0; i < N; ++i) squares.add(v[u][i], i);
    }
  }
#pragma unroll 4
  for (int i = begin + static_cast<int>(threadIdx.x); i < n; i += kSquaresThreads)
    squares.add(static_cast<float>(x[i]), 0);
}

template <class T>
__global__ void __launch_bounds__(kSquaresThreads)
    sum_squares_of_chunks(SumSquares<T> op, SquaresPartial* partial) {
  MIMO_SHARED(SumSquaresShared, s);
  Chunks<kSquaresChunk<T>, CountOfTensor> chunks(op.tensors, {op.n});
  Squares squares;
  for (int64_t i = blockIdx.x; chunks.find(i); i += gridDim.x)
    add_squares(squares, op.x[chunks.tensor()] + chunks.begin(), chunks.count());
  const double sum =
      block_sum((squares.sum[0] + squares.sum[1]) + (squares.sum[2] + squares.sum[3]), s.scratch);
  const double non_finite = block_sum(static_cast<double>(squares.non_finite), s.scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = {sum, non_finite};
}

__global__ void __launch_bounds__(kSquaresThreads)
    sum_squares_of_partials(int n, const SquaresPartial* partial, double* result) {
  MIMO_SHARED(SumSquaresShared, s);
  double sum = 0, non_finite = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kSquaresThreads)
    sum += partial[i].sum, non_finite += partial[i].non_finite;
  sum = block_sum(sum, s.scratch);
  non_finite = block_sum(non_finite, s.scratch);
  if (threadIdx.x == 0) result[0] = sum, result[1] = non_finite;
}

template <class T>
int64_t sum_squares_blocks(const Cuda& context, const SumSquares<T>& op) {
  return chunk_blocks(op.tensors, op.total, kSquaresChunk<T>, int64_t{8} * std::max(1, context.sms));
}

}  // namespace cuda

template <class T>
int64_t workspace(const Cuda& context, const SumSquares<T>& op) {
  return cuda::sum_squares_blocks(context, op) * int64_t{sizeof(cuda::SquaresPartial)};
}

template <class T>
void run(const Cuda& context, const SumSquares<T>& op) {
  using namespace cuda;
  const int64_t blocks = sum_squares_blocks(context, op);
  SquaresPartial* partial = static_cast<SquaresPartial*>(context.ws.data);
  cuda::launch<sum_squares_of_chunks<T>, SumSquaresShared>(context, dim3(static_cast<unsigned>(blocks)),
                                                           kSquaresThreads, op, partial);
  cuda::launch<sum_squares_of_partials, SumSquaresShared>(context, dim3(1), kSquaresThreads,
                                                          static_cast<int>(blocks), partial, op.result);
}

MIMO_CUDA_KERNEL_WITH_WORKSPACE(SumSquares);

}  // namespace mimo
