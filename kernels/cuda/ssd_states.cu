// The chunks of SSD, their time steps, and the states between them.
//
// A walk fuses the chunk states with their passing: a block owns [P, slice of N] of one head's state in
// accumulators and takes the chunks of a sequence in order, H' = exp(s_last) H + sum_j w_j x_j B_j^T. So a
// state costs one write in T (and one read, by whoever needs it) instead of three passes in float; the sum
// itself stays in float. The price is a chain over the chunks of a sequence, short because copies run three
// chunks ahead and a step is 16 products of 16 x 8 a warp: it is hidden as long as sequences * heads * slices
// is near the number of SMs. Not measured.
#include "kernels/cuda/ssd.cuh"

namespace mimo {
namespace cuda {

constexpr int kSsdTableThreads = 256;
struct SsdTableShared {
  int warp[kWarp];
};

// One block: the chunks of all sequences, in order.
__global__ void __launch_bounds__(kSsdTableThreads)
    ssd_table(int sequences, const int32_t* cu, int rows, int chunks, int32_t* first_chunk, SsdChunk* chunk) {
  MIMO_SHARED(SsdTableShared, s);
  const SsdLane l;
  const int thread = static_cast<int>(threadIdx.x);
  int total = 0;
  if (thread == 0) first_chunk[0] = 0;
  for (int base = 0; base < sequences; base += kSsdTableThreads) {
    const int i = base + thread;
    int sum = i < sequences ? (cu[i + 1] - cu[i] + rows - 1) / rows : 0;
    for (int step = 1; step < kWarp; step *= 2) {
      const int below = __shfl_up_sync(kAllLanes, sum, step);
      if (l.lane >= step) sum += below;
    }
    if (l.lane == kWarp - 1) s.warp[l.warp] = sum;
    __syncthreads();
    for (int w = 0; w < l.warp; ++w) sum += s.warp[w];
    if (i < sequences) first_chunk[i + 1] = total + sum;
    for (int w = 0; w < kSsdTableThreads / kWarp; ++w) total += s.warp[w];
    __syncthreads();
  }
  for (int c = thread; c < chunks; c += kSsdTableThreads) {
    SsdChunk out{0, 0, 0, 0};
    if (c < total) {
      int low = 0, high = sequences;  // first_chunk[low] <= c < first_chunk[high]
      while (high - low > 1) {
        const int middle = (low + high) / 2;
        (first_chunk[middle] <= c ? low : high) = middle;
      }
      const int in_sequence = (c - first_chunk[low]) * rows;
      out = {cu[low] + in_sequence, min(rows, cu[low + 1] - cu[low] - in_sequence), in_sequence == 0,
             c + 1 == first_chunk[low + 1]};
    }
    chunk[c] = out;
  }
}

constexpr int kSsdStepWarps = 8;

// A warp a chunk and head; the cumsum is taken in double.
template <class T>
__global__ void __launch_bounds__(kSsdStepWarps* kWarp) ssd_steps(SsdProblem<T> p) {
  constexpr int R = SsdTile<T>::rows / kWarp;
  const SsdLane l;
  const SsdChunk chunk = p.chunk[blockIdx.x];
  const int h = static_cast<int>(blockIdx.y) * kSsdStepWarps + l.warp;
  if (chunk.rows == 0 || h >= p.heads) return;
  const double a = -exp(static_cast<double>(p.a_log[h]));
  double last = 0;
  float dt[R], high[R], low[R];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int i = r * kWarp + l.lane;
    dt[r] = 0;
    if (i < chunk.rows) {
      const float raw = static_cast<float>(p.dt[chunk.row + i][h]) + p.dt_bias[h];
      const float softplus = fmaxf(raw, 0) + log1pf(expf(-fabsf(raw)));
      dt[r] = fminf(fmaxf(softplus, p.dt_min), p.dt_max);
    }
    double s = a * static_cast<double>(dt[r]);
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const double below = __shfl_up_sync(kAllLanes, s, step);
      if (l.lane >= step) s += below;
    }
    s += last;
    last = __shfl_sync(kAllLanes, s, kWarp - 1);
    high[r] = static_cast<float>(s);
    low[r] = static_cast<float>(s - static_cast<double>(high[r]));
  }
  const float last_high = static_cast<float>(last),
              last_low = static_cast<float>(last - static_cast<double>(last_high));
  SsdSteps<T>& out = p.steps_CH[p.at(static_cast<int>(blockIdx.x), h)];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int i = r * kWarp + l.lane;
    out.dt[i] = dt[r];
    out.high[i] = high[r];
    out.low[i] = low[r];
    out.from_start[i] = ssd_exp<T>(high[r]);
    out.into_state[i] = ssd_exp<T>(fminf((last_high - high[r]) + (last_low - low[r]), 0)) * dt[r];
  }
}

constexpr int kSsdWalkStages = 4;
template <class T, int P>
struct SsdWalkShared {
  static constexpr int Q = SsdTile<T>::rows;
  struct Stage {
    T x_QP[Q * ssd_ld<T, P>], b_QN[Q * ssd_ld<T, SsdTile<T>::slice>];
    SsdSteps<T> steps;
  } stage[kSsdWalkStages];
};

// A warp for every 16 rows of the state; z chooses the walk.
template <class T, int P>
__global__ void __launch_bounds__(P * 2) ssd_walk(SsdProblem<T> p, SsdWalk<T> forward, SsdWalk<T> reverse) {
  using Shared = SsdWalkShared<T, P>;
  constexpr int Q = Shared::Q, S = SsdTile<T>::slice;
  MIMO_SHARED(Shared, s);
  const SsdLane l;
  const bool back = blockIdx.z == 1;
  const SsdWalk<T> walk = back ? reverse : forward;
  const int sequence = static_cast<int>(blockIdx.x) / p.slices,
            n0 = static_cast<int>(blockIdx.x) % p.slices * S;
  const int h = static_cast<int>(blockIdx.y), group = h / (p.heads / p.groups);
  const int first_row = p.cu[sequence], end_row = p.cu[sequence + 1];
  const int first = p.first_chunk[sequence], count = p.first_chunk[sequence + 1] - first;
  const int width = min(S, p.state_cols - n0), updates = walk.finish ? count : count - 1;
  const auto index = [&](int i) { return back ? count - 1 - i : i; };
  const auto load = [&](int i) {
    if (i < updates) {
      auto& to = s.stage[i % kSsdWalkStages];
      const int row = first_row + index(i) * Q, rows = min(Q, end_row - row);
      ssd_load<P>(to.x_QP, Q, P, walk.x.data + row * walk.x.ld + h * p.head_dim, walk.x.ld, rows, p.head_dim,
                  walk.x.vectors);
      ssd_load<S>(to.b_QN, Q, width, walk.b.data + row * walk.b.ld + group * p.state + n0, walk.b.ld, rows,
                  p.state - n0, walk.b.vectors);
      ssd_load_record(&to.steps, p.steps_CH + p.at(first + index(i), h));
    }
    cp_async_commit();
  };
  for (int i = 0; i + 1 < kSsdWalkStages; ++i) load(i);

  // Element e of tile n is state[row(e)][n0 + column(n, e)].
  float acc[S / 8][4];
  const int64_t outer = (int64_t{sequence} * p.heads + h) * p.head_dim;
#pragma unroll
  for (int n = 0; n < S / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = l.row(e), column = n0 + l.column(n, e);
      acc[n][e] = walk.start && row < p.head_dim && column < p.state
                      ? walk.start[(outer + row) * p.state + column]
                      : 0;
    }
  for (int i = 0; i < count; ++i) {
    if (i > 0 || walk.start) {
      T* to = walk.states + p.at(first + index(i), h) * P * p.state_cols + n0;
#pragma unroll
      for (int n = 0; n < S / 8; ++n) {
        if (8 * n >= width) break;
#pragma unroll
        for (int e = 0; e < 4; e += 2)
          ssd_store_pair(to + l.row(e) * p.state_cols + l.column(n, 0), acc[n][e], acc[n][e + 1]);
      }
    }
    if (i >= updates) break;
    cp_async_wait<kSsdWalkStages - 2>();
    __syncthreads();
    load(i + kSsdWalkStages - 1);
    const auto& now = s.stage[i % kSsdWalkStages];
    const float decay = now.steps.from_start[Q - 1];
#pragma unroll
    for (int n = 0; n < S / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[n][e] *= decay;
    const SsdWeighted<T> left{{now.x_QP + 16 * l.warp, ssd_ld<T, P>},
                              back ? now.steps.from_start : now.steps.into_state};
    ssd_product<Q / 16, true>(l, acc, left, now.b_QN, ssd_ld<T, S>, {0, width / 16});
  }
  if (!walk.finish) return;
#pragma unroll
  for (int n = 0; n < S / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = l.row(e), column = n0 + l.column(n, e);
      if (row < p.head_dim && column < p.state) walk.finish[(outer + row) * p.state + column] = acc[n][e];
    }
}

template <class T>
void ssd_states(const Cuda& context, const SsdProblem<T>& p, const SsdWalk<T>& forward,
                const SsdWalk<T>* reverse) {
  launch<ssd_table, SsdTableShared>(context, dim3(1), kSsdTableThreads, p.sequences, p.cu, SsdTile<T>::rows,
                                    p.chunks, p.first_chunk, p.chunk);
  launch<ssd_steps<T>>(
      context, dim3(static_cast<unsigned>(p.chunks), static_cast<unsigned>(ceil_div(p.heads, kSsdStepWarps))),
      kSsdStepWarps * kWarp, p);
  const dim3 grid(static_cast<unsigned>(p.sequences * p.slices), static_cast<unsigned>(p.heads),
                  reverse ? 2 : 1);
  ssd_dispatch(p, [&]<int P>() {
    launch<ssd_walk<T, P>, SsdWalkShared<T, P>>(context, grid, P * 2, p, forward,
                                                reverse ? *reverse : forward);
  });
}

template void ssd_states(const Cuda&, const SsdProblem<float>&, const SsdWalk<float>&, const SsdWalk<float>*);
template void ssd_states(const Cuda&, const SsdProblem<bf16>&, const SsdWalk<bf16>&, const SsdWalk<bf16>*);

}  // namespace cuda
}  // namespace mimo
