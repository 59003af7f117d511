// Pixel shuffle: a permutation of runs of 2 cols elements (two neighbouring rows of x are one run of y),
// which bytes alone limit. A warp moves a span of a run. Not measured.
#include "kernels/pixel_shuffle.h"

#include "kernels/cuda/images.cuh"
#include "kernels/cuda/move.cuh"

namespace mimo {
namespace cuda {

template <class Word>
struct PixelShuffleMove {
  int images;
  int64_t runs, words;  // of a run
  const int32_t *sizes, *cu;
  const Word* from;
  Word* to;
};

template <class Word, bool Inverse>
__global__ void __launch_bounds__(kMoveThreads) pixel_shuffle_move(PixelShuffleMove<Word> op) {
  const int64_t run = move_row();  // of y: half a row
  if (run >= op.runs) return;
  const int64_t row = run / 2;
  const int a = static_cast<int>(run % 2), i = image_of(row * 4, op.cu, op.images);
  const int half_width = op.sizes[2 * i + 1] / 2, at = static_cast<int>(row - op.cu[i] / 4);
  const int y = at / half_width, x = at % half_width;
  const int64_t of_x = op.cu[i] / 2 + int64_t{2 * y + a} * half_width + x;
  move_span(op.to + (Inverse ? of_x : run) * op.words, op.from + (Inverse ? run : of_x) * op.words, op.words);
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const PixelShuffle<T>& op) {
  using namespace cuda;
  const int64_t bytes = 2 * int64_t{op.cols} * int64_t{sizeof(T)}, runs = op.rows / 2;
  with_word(address(op.from) | address(op.to) | static_cast<uint64_t>(bytes), [&]<class Word>() {
    const int64_t words = bytes / static_cast<int64_t>(sizeof(Word));
    const PixelShuffleMove<Word> move{.images = op.images,
                                      .runs = runs,
                                      .words = words,
                                      .sizes = op.sizes,
                                      .cu = op.cu,
                                      .from = reinterpret_cast<const Word*>(op.from),
                                      .to = reinterpret_cast<Word*>(op.to)};
    if (op.inverse)
      cuda::launch<pixel_shuffle_move<Word, true>>(context, move_grid(runs, words), kMoveThreads, move);
    else
      cuda::launch<pixel_shuffle_move<Word, false>>(context, move_grid(runs, words), kMoveThreads, move);
  });
}

MIMO_CUDA_KERNEL(PixelShuffle);

}  // namespace mimo
