// The first two steps of the selective scan's backward (selective_scan_backward.cu): what every chunk makes
// of a state before it and a gradient behind it, and from that the states and gradients between chunks.
#pragma once
#include "kernels/cuda/selective_scan.cuh"

namespace mimo::cuda {

constexpr int kScanGroups = 8;  // of kScanChannels, one after the other, in a block of the last step

// What lies in the workspace. da_log takes the place of p, which only `pass` reads.
struct ScanScratch {
  int64_t chunks, blocks;     // blocks: of kScanGroups groups of channels
  float *p, *h, *g, *da_log;  // [chunks, channels, state]; h before, g behind each chunk
  float *dd, *ddelta_bias;    // [chunks, channels]
  float* dbc;                 // [blocks, chunks, state, 2, slots]
  int64_t bytes;
  template <class T>
  ScanScratch(const SelectiveScanBackward<T>& op, void* data)
      : chunks(ceil_div(op.in.tokens, kScanRows)),
        blocks(ceil_div(op.in.channels, kScanChannels * kScanGroups)) {
    float* next = static_cast<float*>(data);
    int64_t used = 0;
    const auto take = [&](int64_t n) {
      float* at = data ? next + used : nullptr;
      used += n;
      return at;
    };
    const int64_t columns = chunks * op.in.channels, states = columns * op.in.state;
    p = da_log = take(states);
    h = take(states);
    g = take(states);
    dd = take(columns);
    ddelta_bias = take(columns);
    dbc = take(blocks * chunks * op.in.state * 2 * kScanRows);
    bytes = used * int64_t{sizeof(float)};
  }
};

struct SelectiveScanChunksShared {
  ScanTile raw, u, z, dy;
  ScanStateTile b, c;
  float a[kScanChannels][kScanMaxStates];
  ScanMarks marks;
};

// Channels [first, first + 8) of rows [t, t + rows).
template <class T>
__device__ inline void scan_load_channels(const SelectiveScanBackward<T>& op, int64_t t, int rows, int first,
                                          bool vectors, SelectiveScanChunksShared& s) {
  const auto tile = [&](const Rows<const T>& x, ScanTile& to) {
    scan_load<kScanChannels>(x, t, rows, first, op.in.channels, vectors, to);
  };
  tile(op.in.delta, s.raw);
  tile(op.in.u, s.u);
  tile(op.dy, s.dy);
  if (op.in.z) tile(op.in.z, s.z);
}
template <class T>
__device__ inline void scan_load_states(const SelectiveScanBackward<T>& op, int64_t t, int rows, int block,
                                        bool vectors, SelectiveScanChunksShared& s) {
  scan_load<kScanStates>(op.in.b, t, rows, block, op.in.state, vectors, s.b);
  scan_load<kScanStates>(op.in.c, t, rows, block, op.in.state, vectors, s.c);
}

// A lane's rows of one channel, with dy behind the gate.
template <class T>
struct ScanBackwardLane : ScanLane<T> {
  const float* dstate_out;
  float dy[kScanSteps];
  __device__ ScanBackwardLane(const SelectiveScanBackward<T>& o, const SelectiveScanChunksShared& s,
                              int channel, int chunk_rows, float bias, const float (&u)[kScanSteps])
      : ScanLane<T>(o.in, s.marks, channel, chunk_rows, s.raw[threadIdx.x / kWarp], bias, u),
        dstate_out(o.dstate_out) {
    const int warp = threadIdx.x / kWarp;
    scan_read(s.dy[warp], dy);
    if (!o.in.z) return;
    float z[kScanSteps];
    scan_read(s.z[warp], z);
#pragma unroll
    for (int k = 0; k < kScanSteps; ++k) dy[k] *= z[k] * scan_sigmoid(z[k]);
  }
  // g of step k, with the gradient of a state that leaves the sequence.
  __device__ float gradient(int k, int n, float c_in, float r) const {
    float g = c_in * dy[k] + r;
    if (this->is_last(k) && dstate_out) g += dstate_out[this->last_state(k, n)];
    return g;
  }
  // What leaves the lane's rows forwards where nothing comes in; with the p of the pairs, their composition.
  __device__ float gradients(int n, const float (&c_in)[kScanSteps], const float (&a)[kScanSteps]) const {
    float r = 0;
#pragma unroll
    for (int k = kScanSteps - 1; k >= 0; --k) r = a[k] * gradient(k, n, c_in[k], r);
    return r;
  }
};

template <class T>
__global__ void __launch_bounds__(kScanThreads, 2)
    selective_scan_chunks(SelectiveScanBackward<T> op, ScanVectors vectors, ScanScratch scratch) {
  MIMO_SHARED(SelectiveScanChunksShared, s);
  const int first = static_cast<int>(blockIdx.x) * kScanChannels, warp = threadIdx.x / kWarp,
            lane = threadIdx.x % kWarp, c = first + warp;
  const bool valid = c < op.in.channels;
  const int64_t t = int64_t{blockIdx.y} * kScanRows;
  const int rows = static_cast<int>(min(int64_t{kScanRows}, op.in.tokens - t));
  scan_load_rates(op.in, first, s.a);
  scan_load_channels(op, t, rows, first, vectors.channels, s);
  scan_mark(op.in.cu, op.in.sequences, t, rows, s.marks);
  __syncthreads();
  float u[kScanSteps];
  scan_read(s.u[warp], u);
  const ScanBackwardLane<T> steps(op, s, c, rows, valid && op.in.delta_bias ? op.in.delta_bias[c] : 0, u);
  for (int block = 0; block < op.in.state; block += kScanStates) {
    if (block > 0) __syncthreads();  // the states before have been used
    scan_load_states(op, t, rows, block, vectors.states, s);
    __syncthreads();
    for (int n = block; n < min(op.in.state, block + kScanStates); ++n) {
      float x[kScanSteps], a[kScanSteps], b[kScanSteps], p, h;
      scan_read(s.b[n - block], x);
      steps.pairs(s.a[warp][n], n, x, a, b, p, h);
      scan_read(s.c[n - block], x);
      float g = steps.gradients(n, x, a);
#pragma unroll
      for (int step = 1; step < kWarp; step *= 2) {  // lane 0's become the chunk's, in order
        const float p_after = __shfl_down_sync(kAllLanes, p, step),
                    h_after = __shfl_down_sync(kAllLanes, h, step),
                    g_after = __shfl_down_sync(kAllLanes, g, step);
        h = p_after * h + h_after;
        g += p * g_after;
        p *= p_after;
      }
      if (lane == 0 && valid) {
        const int64_t at = (int64_t{blockIdx.y} * op.in.channels + c) * op.in.state + n;
        scratch.p[at] = p;
        scratch.h[at] = h;
        scratch.g[at] = g;
      }
    }
  }
}

// The states before and the gradients behind every chunk, in place. size: channels * state.
template <class A>
__global__ void __launch_bounds__(256)
    selective_scan_pass(int64_t chunks, int64_t size, const A* p, A* h, A* g) {
  const int64_t column = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (column >= size) return;
  A state = 0, gradient = 0;
#pragma unroll 4
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t at = i * size + column;
    const A own = h[at];
    h[at] = state;
    state = p[at] * state + own;
  }
#pragma unroll 4
  for (int64_t i = chunks - 1; i >= 0; --i) {
    const int64_t at = i * size + column;
    const A own = g[at];
    g[at] = gradient;
    gradient = p[at] * gradient + own;
  }
}

}  // namespace mimo::cuda
