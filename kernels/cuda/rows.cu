// Moving rows: bytes alone limit it (read once, written once; ScatterAddRows reads the target too). The
// copies know bytes, not types: words of 16, 4 or 2 bytes, whatever divides addresses and strides. Not
// measured.
#include "kernels/rows.h"

#include "kernels/cuda/move.cuh"
#include "kernels/cuda/vector.cuh"

namespace mimo {
namespace cuda {

// Row i of `from` to row i of `to`, where either may be found through `rows`. In words.
template <class Word>
struct RowsMove {
  int64_t count, words;
  const int32_t* rows;
  Rows<const Word> from;
  Rows<Word> to;
};

template <class Word, bool Gather>
__global__ void __launch_bounds__(kMoveThreads) rows_move(RowsMove<Word> op) {
  const int64_t i = move_row();
  if (i >= op.count) return;
  const int64_t row = op.rows[i], from = Gather ? row : i, to = Gather ? i : row;
  move_span(op.to[to], op.from ? op.from[from] : nullptr, op.words);
}

template <class T, int N>
__global__ void __launch_bounds__(kMoveThreads) rows_add(ScatterAddRows<T> op) {
  const int64_t i = move_row();
  if (i >= op.count) return;
  const T* x = op.x[i];
  T* out = op.out[op.rows[i]];
  const int64_t first = (int64_t{blockIdx.y} * kMoveSpan + threadIdx.x % kWarp) * N;
  float a[kMoveWords][N], b[kMoveWords][N];
#pragma unroll
  for (int k = 0; k < kMoveWords; ++k)
    if (const int64_t c = first + k * kWarp * N; c < op.cols) {
      load<N>(a[k], x + c);
      load<N>(b[k], out + c);
    }
#pragma unroll
  for (int k = 0; k < kMoveWords; ++k)
    if (const int64_t c = first + k * kWarp * N; c < op.cols) {
#pragma unroll
      for (int j = 0; j < N; ++j) a[k][j] += b[k][j];
      store<N>(out + c, a[k]);
    }
}

template <bool Gather, class T, template <class> class Op>
void move_rows(const Cuda& context, const Op<T>& op) {
  constexpr int64_t size = sizeof(T);
  const uint64_t divides = address(op.x.data) | address(op.out.data) |
                           static_cast<uint64_t>((op.cols | op.x.ld | op.out.ld) * size);
  with_word(divides, [&]<class Word>() {
    const auto words = [](int64_t elements) { return elements * size / static_cast<int64_t>(sizeof(Word)); };
    cuda::launch<rows_move<Word, Gather>>(
        context, move_grid(op.count, words(op.cols)), kMoveThreads,
        RowsMove<Word>{.count = op.count,
                       .words = words(op.cols),
                       .rows = op.rows,
                       .from = {reinterpret_cast<const Word*>(op.x.data), words(op.x.ld)},
                       .to = {reinterpret_cast<Word*>(op.out.data), words(op.out.ld)}});
  });
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const GatherRows<T>& op) {
  cuda::move_rows<true>(context, op);
}

template <class T>
void run(const Cuda& context, const ScatterRows<T>& op) {
  cuda::move_rows<false>(context, op);
}

template <class T>
void run(const Cuda& context, const ScatterAddRows<T>& op) {
  using namespace cuda;
  constexpr int N = kVector<T>;
  if (op.cols % N == 0 && aligned(op.x) && aligned(op.out))
    cuda::launch<rows_add<T, N>>(context, move_grid(op.count, op.cols / N), kMoveThreads, op);
  else
    cuda::launch<rows_add<T, 1>>(context, move_grid(op.count, op.cols), kMoveThreads, op);
}

MIMO_CUDA_KERNEL(GatherRows);
MIMO_CUDA_KERNEL(ScatterRows);
MIMO_CUDA_KERNEL(ScatterAddRows);

}  // namespace mimo
