// Causal convolution, backward. The limit is bytes: x and dy read, dx written, 6 per element in bf16. du runs
// W - 1 rows ahead of the row whose dx it completes; past a strip's end it is recomputed from W - 1 more rows
// of x and dy. Sums for weight and bias: one row [channels, W | channels] a strip, added up in order by a
// second kernel; at 128 rows a strip and W = 4 they are 40 bytes for 768. Four channels a thread in
// both types, since taps, two windows and the sums live in registers. Not measured.
#include "kernels/cuda/causal_conv.cuh"
#include "kernels/cuda/partial_sums.cuh"

namespace mimo {
namespace cuda {

constexpr int kConvBackwardChannels = 4;

template <class T, int W, int N>
struct ConvBackward {
  const CausalConvBackward<T>& op;
  int c;
  ConvTaps<W, N> taps;
  float dweight[W][N], dbias[N];

  // Rows [begin, end) of sequence s. Where `begin` is 0 the rows of dstate_in come before.
  __device__ void part(int s, int64_t begin, int64_t end) {
    const int64_t first = op.in.cu[s], length = op.in.cu[s + 1] - first;
    const T *x = op.in.x[first] + c, *dy = op.dy[first] + c;
    // Rows t - (W - 1) to t + kConvBatch - 1; du is zero outside the sequence and, unused, before `begin`.
    float window[W - 1 + kConvBatch][N], du[W - 1 + kConvBatch][N], dys[kConvBatch][N];
    conv_load_history<W>(op.in, s, begin, c, window);
#pragma unroll
    for (int k = 0; k < W - 1; ++k) conv_zero(du[k]);
    for (int64_t t = begin; t < end + W - 1; t += kConvBatch) {
#pragma unroll
      for (int b = 0; b < kConvBatch; ++b) {
        if (t + b < length && t + b < end + W - 1) {
          load<N>(window[W - 1 + b], x + (t + b) * op.in.x.ld);
          load<N>(dys[b], dy + (t + b) * op.dy.ld);
        } else {
          conv_zero(window[W - 1 + b]);
          conv_zero(dys[b]);
        }
      }
#pragma unroll
      for (int b = 0; b < kConvBatch; ++b) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float u = taps.u(&window[b], i), g = conv_sigmoid<T>(u);
          du[W - 1 + b][i] = dys[b][i] * g * (1 + u * (1 - g));
        }
        if (t + b < end) {
#pragma unroll
          for (int i = 0; i < N; ++i) {
#pragma unroll
            for (int k = 0; k < W; ++k) dweight[k][i] += du[W - 1 + b][i] * window[b + k][i];
            dbias[i] += du[W - 1 + b][i];
          }
        }
        if (t + b < end + W - 1) input_gradient(s, begin, length, t + b, &du[b]);
      }
#pragma unroll
      for (int k = 0; k < W - 1; ++k)
#pragma unroll
        for (int i = 0; i < N; ++i) {
          window[k][i] = window[k + kConvBatch][i];
          du[k][i] = du[k + kConvBatch][i];
        }
    }
  }

  // Of row t - (W - 1), of x or of the state before it, from du of rows t - (W - 1) to t.
  __device__ void input_gradient(int s, int64_t begin, int64_t length, int64_t t, const float (*du)[N]) {
    const int64_t row = t - (W - 1);
    T* dx;
    if (row >= begin)
      dx = op.dx[op.in.cu[s] + row] + c;
    else if (begin == 0 && op.dstate_in)
      dx = op.dstate_in + conv_state_row(op.in, s, t) + c;
    else
      return;
    float sum[N];
    if (op.dstate_out && t >= length)
      load<N>(sum, op.dstate_out + conv_state_row(op.in, s, t - length) + c);
    else
      conv_zero(sum);
#pragma unroll
    for (int i = 0; i < N; ++i)
#pragma unroll
      for (int k = 0; k < W; ++k) sum[i] += taps.weight[k][i] * du[W - 1 - k][i];
    store<N>(dx, sum);
  }
};

// partial: [strips, channels * (W + 1)], or null where weight and bias are both frozen.
template <class T, int W, int N>
__global__ void __launch_bounds__(kConvThreads, W <= 4 ? 3 : 2)
    causal_conv_backward(CausalConvBackward<T> op, int rows, float* partial) {
  const int c = static_cast<int>(blockIdx.y * kConvThreads + threadIdx.x) * N;
  if (c >= op.in.channels) return;
  ConvBackward<T, W, N> walk{op, c, {}, {}, {}};
  walk.taps.load(op.in.weight, op.in.bias, c);
  const int64_t from = int64_t{blockIdx.x} * rows;
  conv_for_each_part(op.in.cu, op.in.sequences, from, min(op.in.tokens, from + rows),
                     [&](int s, int64_t begin, int64_t end) { walk.part(s, begin, end); });
  if (!partial) return;
  float* sums = partial + int64_t{blockIdx.x} * (W + 1) * op.in.channels;
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int k = 0; k < W; ++k) sums[int64_t{c + i} * W + k] = walk.dweight[k][i];
    sums[int64_t{W} * op.in.channels + c + i] = walk.dbias[i];
  }
}

// An empty sequence hands its state on.
template <class T>
__global__ void __launch_bounds__(kConvThreads) causal_conv_empty(CausalConvBackward<T> op) {
  const int64_t i = int64_t{blockIdx.x} * kConvThreads + threadIdx.x;
  const int64_t size = int64_t{op.in.width - 1} * op.in.channels, s = i / size;
  if (s < op.in.sequences && op.in.cu[s] == op.in.cu[s + 1])
    op.dstate_in[i] = op.dstate_out ? op.dstate_out[i] : T(0.f);
}

// Channels a thread takes, and rows.
template <class T>
struct ConvBackwardShape {
  bool vectors;
  int64_t threads;
  int rows;
  ConvBackwardShape(const Cuda& context, const CausalConvBackward<T>& op)
      : vectors(conv_vectors<kConvBackwardChannels, T>(
            op.in.channels,
            {op.in.x, op.dy, op.dx, {op.in.state_in, 0}, {op.dstate_out, 0}, {op.dstate_in, 0}})),
        threads(ceil_div(op.in.channels, vectors ? kConvBackwardChannels : 1)),
        rows(conv_strip(context, op.in.tokens, threads)) {}
  int64_t strips(int64_t tokens) const { return ceil_div(tokens, rows); }
};

}  // namespace cuda

template <class T>
int64_t workspace(const Cuda& context, const CausalConvBackward<T>& op) {
  if (!op.dweight && !op.dbias) return 0;
  return cuda::ConvBackwardShape<T>(context, op).strips(op.in.tokens) * (op.in.width + 1) * op.in.channels *
         int64_t{sizeof(float)};
}

template <class T>
void run(const Cuda& context, const CausalConvBackward<T>& op) {
  using namespace cuda;
  const ConvBackwardShape<T> shape(context, op);
  const int64_t strips = shape.strips(op.in.tokens);
  float* partial = op.dweight || op.dbias ? static_cast<float*>(context.ws.data) : nullptr;
  const dim3 grid(static_cast<unsigned>(strips),
                  static_cast<unsigned>(ceil_div(shape.threads, kConvThreads)));
  with_conv_width(op.in.width, [&]<int W>() {
    if (shape.vectors)
      cuda::launch<causal_conv_backward<T, W, kConvBackwardChannels>>(context, grid, kConvThreads, op,
                                                                      shape.rows, partial);
    else
      cuda::launch<causal_conv_backward<T, W, 1>>(context, grid, kConvThreads, op, shape.rows, partial);
  });
  if (op.dstate_in) {
    const int64_t n = int64_t{op.in.sequences} * (op.in.width - 1) * op.in.channels;
    cuda::launch<causal_conv_empty<T>>(context, dim3(static_cast<unsigned>(ceil_div(n, kConvThreads))),
                                       kConvThreads, op);
  }
  const int64_t weights = int64_t{op.in.width} * op.in.channels, ld = weights + op.in.channels;
  if (op.dweight) add_partial_sums(context, strips, weights, partial, ld, op.dweight);
  if (op.dbias) add_partial_sums(context, strips, op.in.channels, partial + weights, ld, op.dbias);
}

MIMO_CUDA_KERNEL_WITH_WORKSPACE(CausalConvBackward);

}  // namespace mimo
