// What the causal convolution's forward and backward share. A thread owns N neighbouring channels and walks a
// strip of rows, with the taps and the last rows in registers. Rows are counted from the start of their
// sequence; those before it are the state's.
#pragma once
#include "kernels/causal_conv.h"
#include "kernels/cuda/sequences.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo::cuda {

constexpr int kConvThreads = 128;
constexpr int kConvBatch = 4;  // rows whose loads are in flight together

// The number of packed rows a thread walks: W - 1 more are read, and backward writes one set of sums for each
// strip, so long ones are better once there are strips enough.
inline int conv_strip(const Cuda& context, int64_t tokens, int64_t vectors) {
  const int64_t enough = int64_t{context.sms} * 1024;  // threads
  int rows = 128;
  while (rows > 16 && ceil_div(tokens, rows) * vectors < enough) rows /= 2;
  return rows;
}

// Whether channels can be taken N at a time where rows of x and y and the states are.
template <int N, class T>
bool conv_vectors(int channels, std::initializer_list<Rows<const T>> operands) {
  bool all = channels % N == 0;
  for (const Rows<const T>& x : operands) all = all && aligned(x);
  return all;
}

template <int N>
__device__ inline void conv_zero(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = 0;
}

// The taps and bias of channels [c, c + N).
template <int W, int N>
struct ConvTaps {
  float weight[W][N], bias[N];
  template <class T>
  __device__ void load(const T* weights, const T* biases, int c) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
#pragma unroll
      for (int k = 0; k < W; ++k) weight[k][i] = static_cast<float>(weights[int64_t{c + i} * W + k]);
      bias[i] = biases ? static_cast<float>(biases[c + i]) : 0;
    }
  }
  // u of the row whose inputs are x[0] to x[W - 1].
  __device__ float u(const float (*x)[N], int i) const {
    float sum = bias[i];
#pragma unroll
    for (int k = 0; k < W; ++k) sum += weight[k][i] * x[k][i];
    return sum;
  }
};

// Row m, from 0 to width - 2, of a sequence's state.
template <class T>
__device__ inline int64_t conv_state_row(const CausalConvInputs<T>& in, int sequence, int64_t m) {
  return (int64_t{sequence} * (in.width - 1) + m) * in.channels;
}

// The W - 1 rows before row `begin` of a sequence.
template <int W, int N, class T>
__device__ inline void conv_load_history(const CausalConvInputs<T>& in, int sequence, int64_t begin, int c,
                                         float (*x)[N]) {
#pragma unroll
  for (int i = 0; i < W - 1; ++i) {
    const int64_t t = begin - (W - 1) + i;
    if (t >= 0)
      load<N>(x[i], in.x[in.cu[sequence] + t] + c);
    else if (in.state_in)
      load<N>(x[i], in.state_in + conv_state_row(in, sequence, t + W - 1) + c);
    else
      conv_zero(x[i]);
  }
}

// Exact to float's rounding where that is stored; five instructions where bf16 is, which the bytes of a row
// leave room for.
template <class T>
__device__ inline float conv_sigmoid(float u) {
  if constexpr (sizeof(T) == 2)
    return __fdividef(1.f, 1.f + exp2_fast(u * -1.44269504f));
  else
    return 1.f / (1.f + expf(-u));
}

// Calls f(sequence, begin, end) for the rows [begin, end) of each sequence that lie in packed rows [from,
// to).
template <class F>
__device__ inline void conv_for_each_part(const int32_t* cu, int sequences, int64_t from, int64_t to,
                                          const F& f) {
  for (int s = sequence_of(cu, sequences, from); from < to; ++s) {
    const int64_t first = cu[s], end = min(to, int64_t{cu[s + 1]});
    if (from < end) f(s, from - first, end - first);
    from = max(from, end);
  }
}

}  // namespace mimo::cuda
