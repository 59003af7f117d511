// Selective scan, forward: one pass. A block owns 8 channels and some of the sequences, and walks their rows
// in chunks of 256 with the states carried in shared memory.
//
// Limit: exponentials. A (row, channel) has one for each of N = 16 states beside 8 bytes of bf16 in and out:
// 16 a clock and multiprocessor are 210 G rows x channels/s on an H100, where its bytes would allow 420. An
// item of state takes about 9 other instructions (the pair 4, the lanes' scan 2.5 at 8 rows a lane, its use
// 2), of which 8 fit beside an exponential. Lanes as channels would need neither scan nor transposition, but
// chunks of time would have to be computed twice to be parallel, exponentials and all. B and C are read again
// for every 8 channels, from L2: 8 bytes per (row, channel). Not measured.
#include "kernels/cuda/selective_scan.cuh"

namespace mimo {
namespace cuda {

struct SelectiveScanShared {
  ScanTile raw, u, z;
  ScanStateTile b, c;
  float a[kScanChannels][kScanMaxStates], h[kScanChannels][kScanMaxStates];
  ScanMarks marks;
};

// Where part `part` of the rows begins: at the first sequence that starts at or behind its share.
__device__ inline int64_t scan_part(const int32_t* cu, int sequences, int64_t tokens, int part, int parts) {
  const int64_t t = tokens * part / parts;
  return t == 0 ? 0 : cu[sequence_of(cu, sequences, t - 1) + 1];
}

template <class T>
__global__ void __launch_bounds__(kScanThreads, sizeof(T) == 2 ? 3 : 2)
    selective_scan_forward(SelectiveScan<T> op, ScanVectors vectors) {
  MIMO_SHARED(SelectiveScanShared, s);
  const int first = static_cast<int>(blockIdx.x) * kScanChannels, warp = threadIdx.x / kWarp,
            lane = threadIdx.x % kWarp, c = first + warp;
  const bool valid = c < op.in.channels;
  const int part = static_cast<int>(blockIdx.y), parts = static_cast<int>(gridDim.y);
  const int64_t end = scan_part(op.in.cu, op.in.sequences, op.in.tokens, part + 1, parts);
  const float d = valid ? op.in.d[c] : 0, bias = valid && op.in.delta_bias ? op.in.delta_bias[c] : 0;
  scan_load_rates(op.in, first, s.a);
  for (int n = lane; n < op.in.state; n += kWarp) s.h[warp][n] = 0;  // unused: a part starts with a sequence

  for (int64_t t = scan_part(op.in.cu, op.in.sequences, op.in.tokens, part, parts); t < end; t += kScanRows) {
    const int rows = static_cast<int>(min(int64_t{kScanRows}, end - t));
    // Tiles may be loaded: behind the last barrier a thread reads its own slots alone.
    scan_load<kScanChannels>(op.in.delta, t, rows, first, op.in.channels, vectors.channels, s.raw);
    scan_load<kScanChannels>(op.in.u, t, rows, first, op.in.channels, vectors.channels, s.u);
    if (op.in.z) scan_load<kScanChannels>(op.in.z, t, rows, first, op.in.channels, vectors.channels, s.z);
    scan_mark(op.in.cu, op.in.sequences, t, rows, s.marks);
    __syncthreads();

    float y[kScanSteps];
    scan_read(s.u[warp], y);
    const ScanLane<T> steps(op.in, s.marks, c, rows, s.raw[warp], bias, y);
#pragma unroll
    for (int k = 0; k < kScanSteps; ++k) y[k] *= d;
    for (int block = 0; block < op.in.state; block += kScanStates) {
      if (block > 0) __syncthreads();  // the states before have been used
      scan_load<kScanStates>(op.in.b, t, rows, block, op.in.state, vectors.states, s.b);
      scan_load<kScanStates>(op.in.c, t, rows, block, op.in.state, vectors.states, s.c);
      __syncthreads();
      for (int n = block; n < min(op.in.state, block + kScanStates); ++n) {
        float b_in[kScanSteps], a[kScanSteps], b[kScanSteps], p, h;
        scan_read(s.b[n - block], b_in);
        steps.pairs(s.a[warp][n], n, b_in, a, b, p, h);
        const float before = scan_up(p, h, s.h[warp][n]);
        __syncwarp();  // lane 0 has read it
        if (lane == kWarp - 1) s.h[warp][n] = h;
        float c_in[kScanSteps];
        scan_read(s.c[n - block], c_in);
        h = before;
#pragma unroll
        for (int k = 0; k < kScanSteps; ++k) {
          h = a[k] * h + b[k];
          y[k] += c_in[k] * h;
          if (steps.is_last(k) && op.state_out) op.state_out[steps.last_state(k, n)] = h;
        }
      }
    }
    if (op.in.z) {
      float z[kScanSteps];
      scan_read(s.z[warp], z);
#pragma unroll
      for (int k = 0; k < kScanSteps; ++k) y[k] *= z[k] * scan_sigmoid(z[k]);
    }
    scan_write(s.z[warp], y);
    __syncthreads();
    scan_store(s.z, op.y, t, rows, first, op.in.channels, vectors.channels);
  }
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const SelectiveScan<T>& op) {
  using namespace cuda;
  scan_check(op.in);
  constexpr int N = kVector<T>;
  const ScanVectors vectors{op.in.channels % kScanChannels == 0 && aligned(op.in.u) && aligned(op.in.delta) &&
                                aligned(op.in.z) && aligned(op.y),
                            op.in.state % N == 0 && aligned(op.in.b) && aligned(op.in.c)};
  // Sequences are shared out where channels alone do not fill the multiprocessors.
  const int64_t blocks = ceil_div(op.in.channels, kScanChannels),
                wanted = blocks > 0 ? ceil_div(4 * int64_t{context.sms}, blocks) : 0;
  const int64_t parts = op.in.tokens > 0 ? min(min(wanted, int64_t{op.in.sequences}), int64_t{65535}) : 0;
  cuda::launch<selective_scan_forward<T>, SelectiveScanShared>(
      context, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(parts)), kScanThreads, op, vectors);
  scan_hand_on_empty(context, op.in.sequences, op.in.cu, int64_t{op.in.channels} * op.in.state,
                     op.in.state_in, op.state_out);
}

MIMO_CUDA_KERNEL(SelectiveScan);

}  // namespace mimo
