// What the selective scan's forward and backward share.
//
// A step is a pair (a, b), h -> a h + b, and pairs compose: (a2, b2) o (a1, b1) = (a2 a1, a2 b1 + b2). The
// first step of a sequence has a = 0, so the packed rows are one scan whatever sequences lie in them. Lanes
// are time: a warp takes one channel and 256 rows, a lane 8 of them in turn, and for each state the lanes'
// compositions are scanned by shuffles. So each exponential is taken once and used twice, and any number of
// states costs the same registers.
//
// A block has a warp for each of 8 channels: 16 bytes of a row in bf16. Tiles in shared memory are
// [channel or state][slot]; a lane's 8 rows are in two quads of slots, so that threads with consecutive slots
// and lanes with consecutive quads both meet all banks.
#pragma once
#include "kernels/cuda/sequences.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/selective_scan.h"

namespace mimo::cuda {

constexpr int kScanSteps = 8;                  // rows a lane
constexpr int kScanRows = kScanSteps * kWarp;  // rows a chunk
constexpr int kScanChannels = 8;               // warps a block
constexpr int kScanThreads = kScanChannels * kWarp;
constexpr int kScanStates = 16;      // states of B and C in shared memory at a time
constexpr int kScanMaxStates = 128;  // for decay rates in shared memory
static_assert(kScanThreads == kScanRows, "a thread loads a row");
constexpr float kLog2e = 1.44269504f, kLn2 = 0.693147181f;

using ScanTile = float[kScanChannels][kScanRows];
using ScanStateTile = float[kScanStates][kScanRows];

__device__ inline int scan_row(int slot) {
  return slot % (4 * kWarp) / 4 * kScanSteps + slot / (4 * kWarp) * 4 + slot % 4;
}
__device__ inline void scan_read(const float* slots, float (&x)[kScanSteps]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int j = 0; j < kScanSteps; j += 4) {
    const float4 v = *reinterpret_cast<const float4*>(slots + (j / 4 * kWarp + lane) * 4);
    x[j] = v.x, x[j + 1] = v.y, x[j + 2] = v.z, x[j + 3] = v.w;
  }
}
__device__ inline void scan_write(float* slots, const float (&x)[kScanSteps]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int j = 0; j < kScanSteps; j += 4)
    *reinterpret_cast<float4*>(slots + (j / 4 * kWarp + lane) * 4) =
        make_float4(x[j], x[j + 1], x[j + 2], x[j + 3]);
}

// Whether rows can be taken 16 bytes at a time, of operands by channel and of B and C.
struct ScanVectors {
  bool channels, states;
};

// Columns [first, first + COLS) from row t on, zero beyond row `rows` and beyond `cols`; a thread a row.
template <int COLS, class T>
__device__ inline void scan_load(const Rows<const T>& from, int64_t t, int rows, int first, int cols,
                                 bool vectors, float (*tile)[kScanRows]) {
  constexpr int N = kVector<T>;
  const int slot = static_cast<int>(threadIdx.x), row = scan_row(slot);
  const T* x = from[t] + row * from.ld + first;
#pragma unroll
  for (int c = 0; c < COLS; c += N) {
    float v[N];
    if (vectors && row < rows && first + c < cols) {
      load<N>(v, x + c);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i)
        v[i] = row < rows && first + c + i < cols ? static_cast<float>(x[c + i]) : 0;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) tile[c + i][slot] = v[i];
  }
}
template <class T>
__device__ inline void scan_store(const ScanTile& tile, const Rows<T>& to, int64_t t, int rows, int first,
                                  int cols, bool vectors) {
  constexpr int N = kVector<T>;
  const int slot = static_cast<int>(threadIdx.x), row = scan_row(slot);
  if (row >= rows) return;
  T* y = to[t] + row * to.ld + first;
#pragma unroll
  for (int c = 0; c < kScanChannels; c += N) {
    float v[N];
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = tile[c + i][slot];
    if (vectors) {
      store<N>(y + c, v);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i)
        if (first + c + i < cols) y[c + i] = to_type<T>(v[i]);
    }
  }
}

// The sequence that starts, or ends, with each row of a chunk; -1 where none does.
struct ScanMarks {
  int first[kScanRows], last[kScanRows];
};
__device__ inline void scan_mark(const int32_t* cu, int sequences, int64_t t, int rows, ScanMarks& marks) {
  const int i = static_cast<int>(threadIdx.x);
  int first = -1, last = -1;
  if (i < rows) {
    const int s = sequence_of(cu, sequences, t + i);
    if (cu[s] == t + i) first = s;
    if (cu[s + 1] == t + i + 1) last = s;
  }
  marks.first[i] = first;
  marks.last[i] = last;
}

// A log2(e), A = -exp(a_log), of the block's channels.
template <class T>
__device__ inline void scan_load_rates(const SelectiveScanInputs<T>& in, int first,
                                       float (*a)[kScanMaxStates]) {
  for (int i = static_cast<int>(threadIdx.x); i < kScanChannels * in.state; i += kScanThreads) {
    const int c = i / in.state, n = i % in.state;
    a[c][n] = first + c < in.channels ? -expf(in.a_log[int64_t{first} * in.state + i]) * kLog2e : 0;
  }
}

__device__ inline float scan_softplus(float x) { return fmaxf(x, 0) + log1pf(expf(-fabsf(x))); }
__device__ inline float scan_sigmoid(float x) { return 1 / (1 + expf(-x)); }

// A lane's rows of one channel.
template <class T>
struct ScanLane {
  const SelectiveScanInputs<T>& in;
  const ScanMarks& marks;
  int lane, c, rows;                            // rows: of the lane's that lie in the chunk
  uint32_t first = 0, last = 0;                 // bit k: step k is the first, the last of its sequence
  float delta[kScanSteps], scaled[kScanSteps];  // scaled: delta u

  // raw: delta before the softplus, without its bias.
  __device__ ScanLane(const SelectiveScanInputs<T>& i, const ScanMarks& m, int channel, int chunk_rows,
                      const float* raw, float bias, const float (&u)[kScanSteps])
      : in(i),
        marks(m),
        lane(static_cast<int>(threadIdx.x) % kWarp),
        c(channel),
        rows(chunk_rows - lane * kScanSteps) {
    scan_read(raw, delta);
    if (c >= in.channels) rows = 0;
#pragma unroll
    for (int k = 0; k < kScanSteps; ++k) {
      delta[k] = k < rows ? scan_softplus(delta[k] + bias) : 0;
      scaled[k] = delta[k] * u[k];
      if (k < rows && marks.first[lane * kScanSteps + k] >= 0) first |= 1u << k;
      if (k < rows && marks.last[lane * kScanSteps + k] >= 0) last |= 1u << k;
    }
  }
  __device__ bool is_first(int k) const { return (first >> k & 1) != 0; }
  __device__ bool is_last(int k) const { return (last >> k & 1) != 0; }
  // Of state n of the sequence that starts, or ends, with step k.
  __device__ int64_t first_state(int k, int n) const { return at(marks.first[lane * kScanSteps + k], n); }
  __device__ int64_t last_state(int k, int n) const { return at(marks.last[lane * kScanSteps + k], n); }
  __device__ int64_t at(int sequence, int n) const {
    return (int64_t{sequence} * in.channels + c) * in.state + n;
  }

  // The pairs of state n, and their composition (p, h).
  __device__ void pairs(float rate, int n, const float (&b_in)[kScanSteps], float (&a)[kScanSteps],
                        float (&b)[kScanSteps], float& p, float& h) const {
    p = 1, h = 0;
#pragma unroll
    for (int k = 0; k < kScanSteps; ++k) {
      a[k] = exp2_fast(delta[k] * rate);
      b[k] = scaled[k] * b_in[k];
      if (is_first(k)) {
        if (in.state_in) b[k] += a[k] * in.state_in[first_state(k, n)];
        a[k] = 0;
      }
      h = a[k] * h + b[k];
      p *= a[k];
    }
  }
};

// Composes the pairs of lanes 0 to the own one; after it h is the state behind the lane's rows, where `start`
// is the one before lane 0. Returns the state before the lane's rows.
__device__ inline float scan_up(float p, float& h, float start) {
  const int lane = threadIdx.x % kWarp;
  if (lane == 0) h += p * start;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const float p_before = __shfl_up_sync(kAllLanes, p, step), h_before = __shfl_up_sync(kAllLanes, h, step);
    if (lane >= step) {
      h += p * h_before;
      p *= p_before;
    }
  }
  const float before = __shfl_up_sync(kAllLanes, h, 1);
  return lane == 0 ? start : before;
}
// The same from lane 31 to the own one.
__device__ inline float scan_down(float p, float& h, float start) {
  const int lane = threadIdx.x % kWarp;
  if (lane == kWarp - 1) h += p * start;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const float p_after = __shfl_down_sync(kAllLanes, p, step),
                h_after = __shfl_down_sync(kAllLanes, h, step);
    if (lane + step < kWarp) {
      h += p * h_after;
      p *= p_after;
    }
  }
  const float after = __shfl_down_sync(kAllLanes, h, 1);
  return lane == kWarp - 1 ? start : after;
}

// States [sequences, size] of empty sequences: what goes in, or zero, comes out.
template <class A>
__global__ void __launch_bounds__(256)
    scan_hand_on(int sequences, const int32_t* cu, int64_t size, const A* in, A* out) {
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i >= sequences * size || cu[i / size] != cu[i / size + 1]) return;
  out[i] = in ? in[i] : 0;
}
inline void scan_hand_on_empty(const Cuda& context, int sequences, const int32_t* cu, int64_t size,
                               const float* in, float* out) {
  if (out)
    launch<scan_hand_on<float>>(context, dim3(static_cast<unsigned>(ceil_div(sequences * size, 256))), 256,
                                sequences, cu, size, in, out);
}

template <class T>
void scan_check(const SelectiveScanInputs<T>& in) {
  if (in.state < 1 || in.state > kScanMaxStates)
    throw std::invalid_argument("selective_scan: state: expected 1 to " + std::to_string(kScanMaxStates) +
                                ", found " + std::to_string(in.state));
}

}  // namespace mimo::cuda
