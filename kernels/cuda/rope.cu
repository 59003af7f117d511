// Rotary embedding. A block owns a few tokens: it makes their table of cos and sin once, then turns all heads
// by it, 16 bytes of either half at a time.
//
// Limit: bytes, x read and y written once. Angles are in double as the contract has it: about 60 double
// operations a (token, pair), shared by all heads, so 1 us at 8192 tokens and 64 pairs where the bytes of 32
// heads of 128 take 40 us on an H100. The powers of theta cost several times that each and are taken once a
// block; a table of them in the workspace would save those, for one more launch. Not measured.
#include "kernels/rope.h"

#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/portable/math.h"

namespace mimo {
namespace cuda {

constexpr int kRopeThreads = 256, kRopeTokens = 8, kRopePairs = 64;

struct RopeShared {
  double frequency[kRopePairs];
  float cosine[kRopeTokens][kRopePairs], sine[kRopeTokens][kRopePairs];
};

// `tokens` of a block, at most kRopeTokens. N divides the half and head_dim.
template <class T, int N>
__global__ void __launch_bounds__(kRopeThreads) rope_turn(Rope<T> op, int tokens) {
  MIMO_SHARED(RopeShared, s);
  const int half = op.rotary / 2, thread = static_cast<int>(threadIdx.x);
  const int64_t first = int64_t{blockIdx.x} * tokens;
  const int rows = static_cast<int>(min(int64_t{tokens}, op.tokens - first));
  for (int begin = 0; begin < half; begin += kRopePairs) {
    const int pairs = min(kRopePairs, half - begin);
    __syncthreads();  // the table of the pairs before has been read
    if (thread < pairs) s.frequency[thread] = pow(op.theta, -2.0 * (begin + thread) / op.rotary);
    __syncthreads();
    for (int i = thread; i < rows * pairs; i += kRopeThreads) {
      const int t = i / pairs, j = i % pairs;
      const SinCos angle = sin_cos(op.positions[first + t] * s.frequency[j]);
      s.cosine[t][j] = static_cast<float>(angle.cos);
      s.sine[t][j] = static_cast<float>(op.inverse ? -angle.sin : angle.sin);
    }
    __syncthreads();
    const int vectors = pairs / N, of_token = op.heads * vectors;
    for (int i = thread; i < rows * of_token; i += kRopeThreads) {
      const int t = i / of_token, head = i % of_token / vectors, j = i % vectors * N;
      const int64_t at = int64_t{head} * op.head_dim + begin + j;
      const T* x = op.x[first + t] + at;
      T* y = op.y[first + t] + at;
      float x1[N], x2[N], y1[N], y2[N];
      load<N>(x1, x);
      load<N>(x2, x + half);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const float cosine = s.cosine[t][j + k], sine = s.sine[t][j + k];
        y1[k] = x1[k] * cosine - x2[k] * sine;
        y2[k] = x2[k] * cosine + x1[k] * sine;
      }
      store<N>(y, y1);
      store<N>(y + half, y2);
    }
  }
  if (op.y.data == op.x.data) return;
  const int vectors = (op.head_dim - op.rotary) / N, of_token = op.heads * vectors;
  for (int i = thread; i < rows * of_token; i += kRopeThreads) {
    const int t = i / of_token, head = i % of_token / vectors, j = i % vectors * N;
    const int64_t at = int64_t{head} * op.head_dim + op.rotary + j;
    float x[N];
    load<N>(x, op.x[first + t] + at);
    store<N>(op.y[first + t] + at, x);
  }
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const Rope<T>& op) {
  using namespace cuda;
  constexpr int N = kVector<T>;
  // A table serves more tokens where four blocks for every multiprocessor remain.
  const int64_t spread = op.tokens / (4 * int64_t{max(1, context.sms)});
  const int tokens = static_cast<int>(min(int64_t{kRopeTokens}, max(int64_t{1}, spread)));
  const dim3 grid(static_cast<unsigned>(op.heads > 0 ? ceil_div(op.tokens, tokens) : 0));
  if (op.rotary % (2 * N) == 0 && op.head_dim % N == 0 && aligned(op.x) && aligned(op.y))
    cuda::launch<rope_turn<T, N>, RopeShared>(context, grid, kRopeThreads, op, tokens);
  else
    cuda::launch<rope_turn<T, 1>, RopeShared>(context, grid, kRopeThreads, op, tokens);
}

MIMO_CUDA_KERNEL(Rope);

}  // namespace mimo
