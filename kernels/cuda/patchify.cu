// Patchify: a permutation of runs of `patch` pixels, which bytes alone limit. A warp a patch row: rows of
// patches are written (read, by Unpatchify) end to end; on the side of the pixels a run of 16 bf16 is one
// sector of 32 bytes, so no byte crosses twice, and the warp beside takes the sector beside. Words of 16, 4
// or 2 bytes, whatever divides a run. Not measured.
#include "kernels/patchify.h"

#include "kernels/cuda/images.cuh"
#include "kernels/cuda/move.cuh"

namespace mimo {
namespace cuda {

struct PatchifyMove {
  PatchifyInputs in;
  int element;  // bytes of one
  const char* from;
  char* to;
};

template <class Word, bool Cut>
__global__ void __launch_bounds__(kMoveThreads) patchify_move(PatchifyMove op) {
  const int64_t row = move_row();
  if (row >= op.in.rows) return;
  const int i = image_of(row, op.in.cu, op.in.images);
  const int height = op.in.sizes[2 * i], width = op.in.sizes[2 * i + 1],
            at = static_cast<int>(row - op.in.cu[i]);
  // All in words from here on.
  const int run = op.in.patch * op.element / static_cast<int>(sizeof(Word)),
            features = op.in.channels * op.in.patch * run;
  const int64_t line = int64_t{width} * run, plane = int64_t{height} * op.in.patch * line;
  const int64_t image = op.in.first_pixel[i] * op.element;  // bytes
  const int64_t corner = int64_t{at / width} * op.in.patch * line + int64_t{at % width} * run;
  const Word* from = reinterpret_cast<const Word*>(op.from + (Cut ? image : 0));
  Word* to = reinterpret_cast<Word*>(op.to + (Cut ? 0 : image));
  for (int first = threadIdx.x % kWarp; first < features; first += kMoveSpan) {
    Word word[kMoveWords] = {};
    int64_t pixel[kMoveWords] = {};
#pragma unroll
    for (int k = 0; k < kMoveWords; ++k)
      if (const int feature = first + k * kWarp; feature < features) {
        const int y = feature / run;  // of all channels' lines of a patch
        pixel[k] = corner + y / op.in.patch * plane + y % op.in.patch * line + feature % run;
        word[k] = from[Cut ? pixel[k] : row * features + feature];
      }
#pragma unroll
    for (int k = 0; k < kMoveWords; ++k)
      if (const int feature = first + k * kWarp; feature < features)
        to[Cut ? row * features + feature : pixel[k]] = word[k];
  }
}

template <bool Cut, class T>
void patchify(const Cuda& context, const PatchifyInputs& in, const T* from, T* to) {
  const uint64_t divides = address(from) | address(to) | static_cast<uint64_t>(in.patch * sizeof(T));
  with_word(divides, [&]<class Word>() {
    cuda::launch<patchify_move<Word, Cut>>(context, move_grid(in.rows, 1), kMoveThreads,
                                           PatchifyMove{.in = in,
                                                        .element = sizeof(T),
                                                        .from = reinterpret_cast<const char*>(from),
                                                        .to = reinterpret_cast<char*>(to)});
  });
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const Patchify<T>& op) {
  cuda::patchify<true>(context, op.in, op.pixels, op.patches);
}
template <class T>
void run(const Cuda& context, const Unpatchify<T>& op) {
  cuda::patchify<false>(context, op.in, op.patches, op.pixels);
}

MIMO_CUDA_KERNEL(Patchify);
MIMO_CUDA_KERNEL(Unpatchify);

}  // namespace mimo
