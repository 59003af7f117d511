// Moving rows of memory whose type does not matter. A warp moves a span of kMoveSpan words of a row, each
// lane kMoveWords words that are all under way at once: 2 KB a warp, so that long rows and many rows alike
// fill a GPU.
#pragma once
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo::cuda {

constexpr int kMoveThreads = 256, kMoveWarps = kMoveThreads / kWarp;
constexpr int kMoveWords = 4, kMoveSpan = kMoveWords * kWarp;

// Calls f.template operator()<Word>() with the widest word that divides all of some addresses and byte
// counts, given or-ed together.
template <class F>
void with_word(uint64_t bytes, F&& f) {
  if (bytes % 16 == 0)
    f.template operator()<uint4>();
  else if (bytes % 4 == 0)
    f.template operator()<uint32_t>();
  else
    f.template operator()<uint16_t>();
}
inline uint64_t address(const void* p) { return reinterpret_cast<uintptr_t>(p); }

// A warp a row and span.
inline dim3 move_grid(int64_t rows, int64_t words) {
  return dim3(static_cast<unsigned>(ceil_div(rows, kMoveWarps)),
              static_cast<unsigned>(ceil_div(words, kMoveSpan)));
}
__device__ inline int64_t move_row() {
  return int64_t{blockIdx.x} * kMoveWarps + static_cast<int>(threadIdx.x) / kWarp;
}
// This warp's span of a row of `words` words. from null: zeros.
template <class Word>
__device__ inline void move_span(Word* to, const Word* from, int64_t words) {
  const int64_t first = int64_t{blockIdx.y} * kMoveSpan + threadIdx.x % kWarp;
  Word word[kMoveWords] = {};
#pragma unroll
  for (int i = 0; i < kMoveWords; ++i)
    if (from && first + i * kWarp < words) word[i] = from[first + i * kWarp];
#pragma unroll
  for (int i = 0; i < kMoveWords; ++i)
    if (first + i * kWarp < words) to[first + i * kWarp] = word[i];
}

}  // namespace mimo::cuda
