// Selective scan, backward. With g_t the gradient of h_t and r_t what reaches it from behind,
//   g_t = C_t dy_t + r_t,  r_{t-1} = a_t g_t,
// which composes like the states, from the other end. Three steps:
//   chunks: every chunk of 256 rows alone gives its pairs' composition forwards (p, h) and backwards (p, g);
//   pass:   a thread a (channel, state) makes of them the state before and the gradient behind every chunk;
//   rows:   every chunk again, with those, gives all gradients.
// So chunks are parallel, and two exponentials are taken for each (row, channel, state), the fewest possible
// where no state was kept by forward.
//
// Limit: instructions, about 5 an item in the first step and 28 in the last. dB and dC are sums over
// channels: over the 8 warps through shared memory, over the 8 groups of a block in its part of the
// workspace (which its thread wrote itself), over blocks in a last kernel. Sums over rows go by chunk, then
// over chunks in order. Workspace: 3 floats a (chunk, channel, state), 2 a (row, state, 64 channels). Not
// measured.
#include "kernels/cuda/selective_scan_backward.cuh"

#include "kernels/cuda/partial_sums.cuh"

namespace mimo {
namespace cuda {

struct SelectiveScanRowsShared : SelectiveScanChunksShared {
  ScanTile db, dc;  // of one state, by channel
};

template <class T>
__global__ void __launch_bounds__(kScanThreads, 2)
    selective_scan_rows(SelectiveScanBackward<T> op, ScanVectors vectors, ScanScratch scratch) {
  MIMO_SHARED(SelectiveScanRowsShared, s);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, slot = static_cast<int>(threadIdx.x);
  const int64_t chunk = blockIdx.y, t = chunk * kScanRows;
  const int rows = static_cast<int>(min(int64_t{kScanRows}, op.in.tokens - t));
  scan_mark(op.in.cu, op.in.sequences, t, rows, s.marks);
  for (int group = 0; group < kScanGroups; ++group) {
    const int first = (static_cast<int>(blockIdx.x) * kScanGroups + group) * kScanChannels, c = first + warp;
    if (first >= op.in.channels) break;
    const bool valid = c < op.in.channels;
    // Tiles may be loaded: behind the last barrier a thread reads its own slots alone.
    scan_load_rates(op.in, first, s.a);
    scan_load_channels(op, t, rows, first, vectors.channels, s);
    __syncthreads();
    const float d = valid ? op.in.d[c] : 0, bias = valid && op.in.delta_bias ? op.in.delta_bias[c] : 0;
    float y[kScanSteps];
    scan_read(s.u[warp], y);
    const ScanBackwardLane<T> steps(op, s, c, rows, bias, y);
    float gb[kScanSteps] = {}, ddelta[kScanSteps] = {};  // sums over states of g B, g log2(e) A a h
#pragma unroll
    for (int k = 0; k < kScanSteps; ++k) y[k] *= d;

    for (int block = 0; block < op.in.state; block += kScanStates) {
      if (group == 0 || op.in.state > kScanStates) {
        scan_load_states(op, t, rows, block, vectors.states, s);
        __syncthreads();
      }
      for (int n = block; n < min(op.in.state, block + kScanStates); ++n) {
        const int64_t at = chunk * op.in.channels * op.in.state + (c * op.in.state + n);
        const float rate = s.a[warp][n], start = valid ? scratch.h[at] : 0,
                    behind = valid ? scratch.g[at] : 0;
        float b_in[kScanSteps], c_in[kScanSteps], a[kScanSteps], h[kScanSteps], p, last;
        scan_read(s.b[n - block], b_in);
        scan_read(s.c[n - block], c_in);
        steps.pairs(rate, n, b_in, a, h, p, last);
        float r = steps.gradients(n, c_in, a);
        const float before = scan_up(p, last, start);
        r = scan_down(p, r, behind);
        last = before;
#pragma unroll
        for (int k = 0; k < kScanSteps; ++k) {
          h[k] += a[k] * last;
          last = h[k];
          y[k] += c_in[k] * last;
        }
        float da = 0;
#pragma unroll
        for (int k = kScanSteps - 1; k >= 0; --k) {
          const float g = steps.gradient(k, n, c_in[k], r);
          float through = a[k] * g * (k > 0 ? h[k - 1] : before);
          if (steps.is_first(k)) {
            const int64_t state = steps.first_state(k, n);
            const float carried = exp2_fast(steps.delta[k] * rate) * g;
            if (op.dstate_in) op.dstate_in[state] = carried;
            if (op.in.state_in) through = carried * op.in.state_in[state];
          }
          r = a[k] * g;
          gb[k] += b_in[k] * g;
          ddelta[k] += rate * through;
          da += steps.delta[k] * through;
          b_in[k] = g * steps.scaled[k];
          c_in[k] = steps.dy[k] * h[k];
        }
        float* dbc = scratch.dbc + (blockIdx.x * scratch.chunks + chunk) * op.in.state * 2 * kScanRows +
                     n * 2 * kScanRows;
        // Under way before the barrier: behind it nothing would hide their latency.
        float db = group > 0 ? dbc[slot] : 0, dc = group > 0 ? dbc[kScanRows + slot] : 0;
        scan_write(s.db[warp], b_in);
        scan_write(s.dc[warp], c_in);
        da = warp_sum(da);
        if (lane == 0 && valid) scratch.da_log[at] = da * rate * kLn2;
        __syncthreads();
#pragma unroll
        for (int w = 0; w < kScanChannels; ++w) db += s.db[w][slot], dc += s.dc[w][slot];
        dbc[slot] = db;
        dbc[kScanRows + slot] = dc;
        __syncthreads();
      }
    }

    float u[kScanSteps], raw[kScanSteps], z[kScanSteps], dd = 0, dbias = 0;
    scan_read(s.u[warp], u);
    scan_read(s.raw[warp], raw);
#pragma unroll
    for (int k = 0; k < kScanSteps; ++k) {
      const float x = raw[k] + bias, slope = x > 20 ? 1 : scan_sigmoid(x);
      raw[k] = (ddelta[k] * kLn2 + u[k] * gb[k]) * slope;
      dbias += raw[k];
      dd += steps.dy[k] * u[k];
      u[k] = d * steps.dy[k] + steps.delta[k] * gb[k];
    }
    dd = warp_sum(dd);
    dbias = warp_sum(dbias);
    if (lane == 0 && valid) {
      scratch.dd[chunk * op.in.channels + c] = dd;
      scratch.ddelta_bias[chunk * op.in.channels + c] = dbias;
    }
    scan_write(s.u[warp], u);
    scan_write(s.raw[warp], raw);
    if (op.in.z) {
      float dy[kScanSteps];
      scan_read(s.z[warp], z);
      scan_read(s.dy[warp], dy);
#pragma unroll
      for (int k = 0; k < kScanSteps; ++k) {
        const float sigmoid = scan_sigmoid(z[k]);
        z[k] = dy[k] * y[k] * sigmoid * (1 + z[k] * (1 - sigmoid));
      }
      scan_write(s.z[warp], z);
    }
    __syncthreads();
    const auto store = [&](const ScanTile& tile, const Rows<T>& x) {
      scan_store(tile, x, t, rows, first, op.in.channels, vectors.channels);
    };
    store(s.u, op.du);
    store(s.raw, op.ddelta);
    if (op.in.z) store(s.z, op.dz);
  }
}

// db and dc: the sums of the blocks of channels, in order. A thread block for a chunk and a state.
template <class T>
__global__ void __launch_bounds__(kScanThreads)
    selective_scan_sum(SelectiveScanBackward<T> op, ScanScratch scratch) {
  const int64_t chunk = blockIdx.x, n = blockIdx.y;
  const int slot = static_cast<int>(threadIdx.x);
  const int64_t t = chunk * kScanRows + scan_row(slot);
  if (t >= op.in.tokens) return;
  float db = 0, dc = 0;
  const float* dbc = scratch.dbc + (chunk * op.in.state + n) * 2 * kScanRows;
#pragma unroll 4
  for (int64_t b = 0; b < scratch.blocks; ++b, dbc += scratch.chunks * op.in.state * 2 * kScanRows) {
    db += dbc[slot];
    dc += dbc[kScanRows + slot];
  }
  op.db[t][n] = to_type<T>(db);
  op.dc[t][n] = to_type<T>(dc);
}

}  // namespace cuda

template <class T>
int64_t workspace(const Cuda&, const SelectiveScanBackward<T>& op) {
  cuda::scan_check(op.in);
  return cuda::ScanScratch(op, nullptr).bytes;
}

template <class T>
void run(const Cuda& context, const SelectiveScanBackward<T>& op) {
  using namespace cuda;
  scan_check(op.in);
  constexpr int N = kVector<T>;
  const ScanVectors vectors{op.in.channels % kScanChannels == 0 && aligned(op.in.u) && aligned(op.in.delta) &&
                                aligned(op.in.z) && aligned(op.dy) && aligned(op.du) && aligned(op.ddelta) &&
                                aligned(op.dz),
                            op.in.state % N == 0 && aligned(op.in.b) && aligned(op.in.c)};
  const ScanScratch scratch(op, context.ws.data);
  const auto chunks = static_cast<unsigned>(scratch.chunks);
  const int64_t size = int64_t{op.in.channels} * op.in.state;
  const dim3 groups(static_cast<unsigned>(ceil_div(op.in.channels, kScanChannels)), chunks);
  cuda::launch<selective_scan_chunks<T>, SelectiveScanChunksShared>(context, groups, kScanThreads, op,
                                                                    vectors, scratch);
  if (op.in.tokens > 0)
    cuda::launch<selective_scan_pass<float>>(context, dim3(static_cast<unsigned>(ceil_div(size, 256))), 256,
                                             scratch.chunks, size, scratch.p, scratch.h, scratch.g);
  cuda::launch<selective_scan_rows<T>, SelectiveScanRowsShared>(
      context, dim3(static_cast<unsigned>(scratch.blocks), chunks), kScanThreads, op, vectors, scratch);
  cuda::launch<selective_scan_sum<T>>(context, dim3(chunks, static_cast<unsigned>(op.in.state)), kScanThreads,
                                      op, scratch);
  if (op.dd) add_partial_sums(context, scratch.chunks, op.in.channels, scratch.dd, op.in.channels, op.dd);
  if (op.da_log) add_partial_sums(context, scratch.chunks, size, scratch.da_log, size, op.da_log);
  if (op.ddelta_bias)
    add_partial_sums(context, scratch.chunks, op.in.channels, scratch.ddelta_bias, op.in.channels,
                     op.ddelta_bias);
  scan_hand_on_empty(context, op.in.sequences, op.in.cu, size, op.dstate_out, op.dstate_in);
}

MIMO_CUDA_KERNEL_WITH_WORKSPACE(SelectiveScanBackward);

}  // namespace mimo
