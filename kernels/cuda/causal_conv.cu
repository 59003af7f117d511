// Causal convolution, forward. The limit is bytes: x read and y written once, 4 per element in bf16; the 12
// to 16 instructions an element takes are about half of what the bytes leave time for on an H100. A strip of
// R rows reads W - 1 more. Vectors are 16 bytes; four rows are loaded before any is used. Not measured.
#include "kernels/cuda/causal_conv.cuh"

namespace mimo {
namespace cuda {

template <class T, int W, int N>
__global__ void __launch_bounds__(kConvThreads, W <= 4 ? 4 : 2)
    causal_conv_forward(CausalConv<T> op, int rows) {
  const int c = static_cast<int>(blockIdx.y * kConvThreads + threadIdx.x) * N;
  if (c >= op.in.channels) return;
  ConvTaps<W, N> taps;
  taps.load(op.in.weight, op.in.bias, c);
  const int64_t from = int64_t{blockIdx.x} * rows;
  conv_for_each_part(op.in.cu, op.in.sequences, from, min(op.in.tokens, from + rows),
                     [&](int s, int64_t begin, int64_t end) {
                       const T* x = op.in.x[op.in.cu[s]] + c;
                       T* y = op.y[op.in.cu[s]] + c;
                       float window[W - 1 + kConvBatch][N];  // rows t - (W - 1) to t + kConvBatch - 1
                       conv_load_history<W>(op.in, s, begin, c, window);
                       for (int64_t t = begin; t < end; t += kConvBatch) {
#pragma unroll
                         for (int b = 0; b < kConvBatch; ++b)
                           if (t + b < end) load<N>(window[W - 1 + b], x + (t + b) * op.in.x.ld);
#pragma unroll
                         for (int b = 0; b < kConvBatch; ++b)
                           if (t + b < end) {
                             float v[N];
#pragma unroll
                             for (int i = 0; i < N; ++i) {
                               const float u = taps.u(&window[b], i);
                               v[i] = u * conv_sigmoid<T>(u);
                             }
                             store<N>(y + (t + b) * op.y.ld, v);
                           }
#pragma unroll
                         for (int k = 0; k < W - 1; ++k)
#pragma unroll
                           for (int i = 0; i < N; ++i) window[k][i] = window[k + kConvBatch][i];
                       }
                     });
}

// The last W - 1 inputs of every sequence, with its state_in before them; a thread an element.
template <class T>
__global__ void __launch_bounds__(kConvThreads) causal_conv_state(CausalConv<T> op) {
  const int64_t i = int64_t{blockIdx.x} * kConvThreads + threadIdx.x, history = op.in.width - 1;
  if (i >= op.in.sequences * history * op.in.channels) return;
  const int64_t c = i % op.in.channels, m = i / op.in.channels % history, s = i / op.in.channels / history;
  const int64_t t = op.in.cu[s + 1] - op.in.cu[s] + m - history;  // row of x
  if (t >= 0)
    op.state_out[i] = op.in.x[op.in.cu[s] + t][c];
  else
    op.state_out[i] =
        op.in.state_in ? op.in.state_in[(s * history + t + history) * op.in.channels + c] : T(0.f);
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const CausalConv<T>& op) {
  using namespace cuda;
  with_conv_width(op.in.width, [&]<int W>() {
    const auto start = [&]<int N>() {
      const int64_t vectors = ceil_div(op.in.channels, N);
      const int rows = conv_strip(context, op.in.tokens, vectors);
      const dim3 grid(static_cast<unsigned>(ceil_div(op.in.tokens, rows)),
                      static_cast<unsigned>(ceil_div(vectors, kConvThreads)));
      cuda::launch<causal_conv_forward<T, W, N>>(context, grid, kConvThreads, op, rows);
    };
    if (conv_vectors<kVector<T>, T>(op.in.channels, {op.in.x, op.y, {op.in.state_in, 0}}))
      start.template operator()<kVector<T>>();
    else
      start.template operator()<1>();
  });
  if (op.state_out) {
    const int64_t n = int64_t{op.in.sequences} * (op.in.width - 1) * op.in.channels;
    cuda::launch<causal_conv_state<T>>(context, dim3(static_cast<unsigned>(ceil_div(n, kConvThreads))),
                                       kConvThreads, op);
  }
}

MIMO_CUDA_KERNEL(CausalConv);

}  // namespace mimo
