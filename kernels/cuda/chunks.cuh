// The elements of many tensors, cut into chunks that blocks take in turn. How many elements each tensor has
// stands in device memory; the host knows only the tensors and elements in all, enough to bound the chunks.
#pragma once
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo::cuda {

// Walks tensors 0, 1, ..: counts(i) is the elements of tensor i. All lanes of a warp use it alike.
template <int kChunk, class Counts>
class Chunks {
 public:
  __device__ Chunks(int tensors, const Counts& counts) : tensors_(tensors), counts_(counts) {}

  // Goes to the chunk that has this number, counted over all tensors; no lower than the last one asked for.
  // False behind the last chunk.
  __device__ bool find(int64_t number) {
    while (number >= first_ + here_) {  // then look at 32 tensors at once
      const int lane = threadIdx.x % kWarp;
      if (next_ >= tensors_) return false;
      const int64_t mine = next_ + lane < tensors_ ? ceil_div(counts_(next_ + lane), kChunk) : 0;
      int64_t up_to = mine;  // chunks of tensors next_ .. next_ + lane
#pragma unroll
      for (int step = 1; step < kWarp; step *= 2) {
        const int64_t below = __shfl_up_sync(kAllLanes, up_to, step);
        if (lane >= step) up_to += below;
      }
      first_ += here_;
      const unsigned beyond = __ballot_sync(kAllLanes, first_ + up_to > number);
      const int at =
          beyond ? __ffs(static_cast<int>(beyond)) - 1 : kWarp - 1;  // the tensor, or the last seen
      here_ = __shfl_sync(kAllLanes, mine, at);
      first_ += __shfl_sync(kAllLanes, up_to, at) - here_;
      tensor_ = next_ + at;
      next_ = tensor_ + 1;
    }
    begin_ = (number - first_) * kChunk;
    const int64_t left = counts_(tensor_) - begin_;
    count_ = static_cast<int>(left < kChunk ? left : kChunk);
    return true;
  }
  __device__ int tensor() const { return tensor_; }
  __device__ int64_t begin() const { return begin_; }  // first element
  __device__ int count() const { return count_; }      // elements

 private:
  const int tensors_;
  const Counts counts_;
  int64_t first_ = 0, here_ = 0, begin_ = 0;  // chunks of earlier tensors, of this one
  int tensor_ = 0, next_ = 0, count_ = 0;
};

// Blocks that take the chunks in turn, at most `most`.
inline int64_t chunk_blocks(int tensors, int64_t total, int chunk, int64_t most) {
  return std::min(most, total / chunk + tensors);
}

}  // namespace mimo::cuda
