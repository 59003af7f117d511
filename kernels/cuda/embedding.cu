// Embedding lookup: a copy of rows, which bytes alone limit. Not measured.
#include "kernels/embedding.h"

#include "kernels/cuda/move.cuh"

namespace mimo {
namespace cuda {

template <class Word>
struct EmbeddingLookup {
  int64_t tokens, words, first, rows;
  const int32_t* ids;
  const Word* table;
  Word* out;
  int64_t out_ld;
};

template <class Word>
__global__ void __launch_bounds__(kMoveThreads) embedding_lookup(EmbeddingLookup<Word> op) {
  const int64_t t = move_row();
  if (t >= op.tokens) return;
  const int64_t row = op.ids[t] - op.first;
  const bool here = row >= 0 && row < op.rows;
  move_span(op.out + t * op.out_ld, here ? op.table + row * op.words : nullptr, op.words);
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const Embedding<T>& op) {
  using namespace cuda;
  constexpr int64_t size = sizeof(T);
  const uint64_t divides =
      address(op.table) | address(op.out) | static_cast<uint64_t>((op.cols | op.out_ld) * size);
  with_word(divides, [&]<class Word>() {
    const auto words = [](int64_t elements) { return elements * size / static_cast<int64_t>(sizeof(Word)); };
    cuda::launch<embedding_lookup<Word>>(
        context, move_grid(op.tokens, words(op.cols)), kMoveThreads,
        EmbeddingLookup<Word>{op.tokens, words(op.cols), op.first, op.rows, op.ids,
                              reinterpret_cast<const Word*>(op.table), reinterpret_cast<Word*>(op.out),
                              words(op.out_ld)});
  });
}

MIMO_CUDA_KERNEL(Embedding);

}  // namespace mimo
