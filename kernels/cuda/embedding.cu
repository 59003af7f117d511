// Embedding lookup: a copy of rows, which bytes alone limit. Not measured.
#include "kernels/embedding.h"

#include "kernels/cuda/move.cuh"

namespace mimo {
namespace cuda {

template <class Word>
struct EmbeddingLookup {
  EmbeddingInputs in;
  int64_t words;  // of a row
  const Word* table;
  Rows<Word> out;
};

template <class Word>
__global__ void __launch_bounds__(kMoveThreads) embedding_lookup(EmbeddingLookup<Word> op) {
  const int64_t t = move_row();
  if (t >= op.in.tokens) return;
  const int64_t row = op.in.ids[t] - op.in.first;
  const bool here = row >= 0 && row < op.in.rows;
  move_span(op.out[t], here ? op.table + row * op.words : nullptr, op.words);
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const Embedding<T>& op) {
  using namespace cuda;
  constexpr int64_t size = sizeof(T);
  const uint64_t divides =
      address(op.table) | address(op.out.data) | static_cast<uint64_t>((op.in.cols | op.out.ld) * size);
  with_word(divides, [&]<class Word>() {
    const auto words = [](int64_t elements) { return elements * size / static_cast<int64_t>(sizeof(Word)); };
    cuda::launch<embedding_lookup<Word>>(
        context, move_grid(op.in.tokens, words(op.in.cols)), kMoveThreads,
        EmbeddingLookup<Word>{.in = op.in,
                              .words = words(op.in.cols),
                              .table = reinterpret_cast<const Word*>(op.table),
                              .out = {reinterpret_cast<Word*>(op.out.data), words(op.out.ld)}});
  });
}

MIMO_CUDA_KERNEL(Embedding);

}  // namespace mimo
