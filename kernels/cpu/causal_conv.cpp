// Work is cut into blocks of rows and tiles of channels. Inputs are addressed by their place v in a sequence
// with its width - 1 rows of state before it: v < width - 1 is a row of state_in, or zero.
#include "kernels/causal_conv.h"

#include "kernels/cpu/simd.h"
#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

constexpr int kTile = 256;  // channels

// The inputs, weights and bias of one tile of channels.
template <class T, int W>
struct Tile {
  using A = acc_t<T>;
  const CausalConvInputs<T>& in;
  int first, cols;
  A weight[W][kTile], bias[kTile];
  T zero[kTile] = {};

  Tile(const CausalConvInputs<T>& i, int tile)
      : in(i), first(tile * kTile), cols(std::min(kTile, i.channels - first)) {
    for (int c = 0; c < cols; ++c) {
      for (int k = 0; k < W; ++k) weight[k][c] = in.weight[int64_t{first + c} * W + k];
      bias[c] = in.bias ? A(in.bias[first + c]) : A(0);
    }
  }
  const T* input(int s, int64_t v) const {
    if (v >= W - 1) return in.x[in.cu[s] + v - (W - 1)] + first;
    return in.state_in ? in.state_in + (int64_t{s} * (W - 1) + v) * in.channels + first : zero;
  }
  // The inputs of row t of sequence s, oldest first.
  void inputs(int s, int64_t t, const T* (&x)[W]) const {
    for (int k = 0; k < W; ++k) x[k] = input(s, t + k);
  }
  A u(const T* const (&x)[W], int c) const {
    A sum = bias[c];
#pragma GCC unroll 8
    for (int k = 0; k < W; ++k) sum += weight[k][c] * A(x[k][c]);
    return sum;
  }
};

// Calls f(sequence, begin, end) for the rows [begin, end) of each sequence, counted from its start, that lie
// in the packed rows [from, to).
template <class F>
void for_each_part(const int32_t* cu, int sequences, int64_t from, int64_t to, F&& f) {
  if (from >= to) return;
  for (int s = static_cast<int>(std::upper_bound(cu, cu + sequences + 1, from) - cu) - 1;
       s < sequences && cu[s] < to; ++s) {
    const int64_t begin = std::max<int64_t>(from, cu[s]), end = std::min<int64_t>(to, cu[s + 1]);
    if (begin < end) f(s, begin - cu[s], end - cu[s]);
  }
}

template <int W, class T>
void forward(const CausalConv<T>& op) {
  using A = acc_t<T>;
  const Blocks blocks(op.in.tokens, 64, 1 << 20);
  const int tiles = (op.in.channels + kTile - 1) / kTile;
  parallel_for(blocks.count * tiles, op.in.tokens * op.in.channels * int64_t{2 * sizeof(T)},
               [&](int64_t task) {
                 const int64_t b = task / tiles;
                 const Tile<T, W> tile(op.in, static_cast<int>(task % tiles));
                 for_each_part(op.in.cu, op.in.sequences, blocks.begin(b), blocks.end(b),
                               [&](int s, int64_t begin, int64_t end) {
                                 for (int64_t t = begin; t < end; ++t) {
                                   const T* x[W];
                                   tile.inputs(s, t, x);
                                   T* y = op.y[op.in.cu[s] + t] + tile.first;
#pragma omp simd
                                   for (int c = 0; c < tile.cols; ++c) {
                                     const A u = tile.u(x, c);
                                     y[c] = u * sigmoid(u);
                                   }
                                 }
                               });
               });
  if (!op.state_out) return;
  for (int i = 0; i < tiles; ++i) {
    const Tile<T, W> tile(op.in, i);
    for (int s = 0; s < op.in.sequences; ++s)
      for (int m = 0; m < W - 1; ++m)
        std::copy_n(tile.input(s, op.in.cu[s + 1] - op.in.cu[s] + m), tile.cols,
                    op.state_out + (int64_t{s} * (W - 1) + m) * op.in.channels + tile.first);
  }
}

// Rows [begin, end) of sequence s. du runs width - 1 rows ahead of the row whose dx it completes, so that it
// is needed beyond `end` (recomputed there by the next block too); it is zero beyond the sequence.
template <int W, class T>
void backward_part(const CausalConvBackward<T>& op, const Tile<T, W>& tile, int s, int64_t begin, int64_t end,
                   acc_t<T> (&dw)[W + 1][kTile]) {
  using A = acc_t<T>;
  A du[W][kTile] = {};  // a ring, row t at t mod W
  const int64_t length = op.in.cu[s + 1] - op.in.cu[s];
  const int cols = tile.cols;
  for (int64_t t = begin; t < end + W - 1; ++t) {
    A* now = du[t % W];
    if (t < length) {
      const T* x[W];
      tile.inputs(s, t, x);
      const T* dy = op.dy[op.in.cu[s] + t] + tile.first;
#pragma omp simd
      for (int c = 0; c < cols; ++c) {
        const A u = tile.u(x, c), g = sigmoid(u);
        now[c] = A(dy[c]) * g * (1 + u * (1 - g));
      }
      if (t < end) {
        for (int k = 0; k < W; ++k)
#pragma omp simd
          for (int c = 0; c < cols; ++c) dw[k][c] += now[c] * A(x[k][c]);
#pragma omp simd
        for (int c = 0; c < cols; ++c) dw[W][c] += now[c];
      }
    } else {
      std::fill_n(now, cols, A(0));
    }
    // The gradient of input v = t: of row t - (W - 1), or of the state before row 0.
    const int64_t row = t - (W - 1);
    T* dx;
    if (row >= begin)
      dx = op.dx[op.in.cu[s] + row] + tile.first;
    else if (begin == 0 && op.dstate_in)
      dx = op.dstate_in + (int64_t{s} * (W - 1) + t) * op.in.channels + tile.first;
    else
      continue;
    const T* dstate = op.dstate_out && t >= length
                          ? op.dstate_out + (int64_t{s} * (W - 1) + t - length) * op.in.channels + tile.first
                          : tile.zero;
    const A* ring[W];
    for (int k = 0; k < W; ++k) ring[k] = du[(t - k + W) % W];
#pragma omp simd
    for (int c = 0; c < cols; ++c) {
      A sum = dstate[c];
#pragma GCC unroll 8
      for (int k = 0; k < W; ++k) sum += tile.weight[k][c] * ring[k][c];
      dx[c] = sum;
    }
  }
}

template <int W, class T>
void backward(const CausalConvBackward<T>& op, acc_t<T>* partial) {
  using A = acc_t<T>;
  const Blocks blocks(op.in.tokens);
  const int tiles = (op.in.channels + kTile - 1) / kTile;
  parallel_for(
      blocks.count * tiles, op.in.tokens * op.in.channels * int64_t{3 * sizeof(T)}, [&](int64_t task) {
        const int64_t b = task / tiles;
        const Tile<T, W> tile(op.in, static_cast<int>(task % tiles));
        A dw[W + 1][kTile] = {};
        for_each_part(
            op.in.cu, op.in.sequences, blocks.begin(b), blocks.end(b),
            [&](int s, int64_t begin, int64_t end) { backward_part<W>(op, tile, s, begin, end, dw); });
        for (int k = 0; k <= W; ++k)
          std::copy_n(dw[k], tile.cols, partial + (b * (W + 1) + k) * op.in.channels + tile.first);
      });
  for (int s = 0; op.dstate_in && s < op.in.sequences; ++s) {  // an empty sequence hands its state on
    if (op.in.cu[s + 1] > op.in.cu[s]) continue;
    const int64_t size = int64_t{W - 1} * op.in.channels;
    T* out = op.dstate_in + s * size;
    op.dstate_out ? std::copy_n(op.dstate_out + s * size, size, out) : std::fill_n(out, size, T(0.f));
  }
  const int64_t ld = int64_t{W + 1} * op.in.channels;
  if (op.dbias)
    add_partial_sums(blocks.count, op.in.channels, partial + int64_t{W} * op.in.channels, ld, op.dbias);
  if (!op.dweight) return;
  parallel_for(tiles, blocks.count * ld * int64_t{sizeof(A)}, [&](int64_t i) {
    for (int k = 0; k < W; ++k) {
      A sum[kTile] = {};
      const int first = static_cast<int>(i) * kTile, cols = std::min(kTile, op.in.channels - first);
      for (int64_t b = 0; b < blocks.count; ++b) {
        const A* p = partial + b * ld + int64_t{k} * op.in.channels + first;
#pragma omp simd
        for (int c = 0; c < cols; ++c) sum[c] += p[c];
      }
      for (int c = 0; c < cols; ++c) op.dweight[int64_t{first + c} * W + k] += sum[c];
    }
  });
}

}  // namespace

template <class T>
void run(const Cpu&, const CausalConv<T>& op) {
  with_conv_width(op.in.width, [&]<int W>() { forward<W>(op); });
}

template <class T>
int64_t workspace(const Cpu&, const CausalConvBackward<T>& op) {
  return Blocks(op.in.tokens).count * (op.in.width + 1) * op.in.channels * int64_t{sizeof(acc_t<T>)};
}

template <class T>
void run(const Cpu& cpu, const CausalConvBackward<T>& op) {
  with_conv_width(op.in.width, [&]<int W>() { backward<W>(op, static_cast<acc_t<T>*>(cpu.ws.data)); });
}

MIMO_CPU_KERNEL(CausalConv);
MIMO_CPU_KERNEL(CausalConvBackward);
MIMO_CPU_WORKSPACE(CausalConvBackward);

}  // namespace mimo
