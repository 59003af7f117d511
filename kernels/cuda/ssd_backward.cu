// Backward of SSD (the formulas: ssd_backward.cuh). The states and their gradients are walked again, then
// dx and what lies inside a chunk (ssd_backward_chunk.cu), then what is summed over the heads of a group,
// then the time steps and the parameters. Every sum has one order, so results have the same bits in every
// run.
//
// Scratch: H and E, 4 N P / Q bytes a token and head in bf16, four times x at N 128; the rest is a tenth of
// that. In ssd_backward_group a block goes through all heads of a group, so one group and a short stream make
// few blocks; sums over parts of the heads would fill the GPU there, at the price of another pass.
//
// Floor a token and head, P 64, N 128, bf16: x and dy three times and dx once (0.9 KB), H written and read
// once, E written once and read twice (1.3 KB); 10 N P + 2 Q P = 90 kFLOP. Not measured.
#include "kernels/cuda/ssd_backward.cuh"

namespace mimo {
namespace cuda {

template <class T, int P>
struct SsdGroupShared {
  static constexpr int Q = SsdTile<T>::rows, S = SsdTile<T>::slice;
  struct Head {
    T rows_QP[Q * ssd_ld<T, P>], state_PN[P * ssd_ld<T, S>];
    SsdSteps<T> steps;
  } head[2];
  T own_QN[Q * ssd_ld<T, S>], other_QN[Q * ssd_ld<T, S>], dcb_QQ[Q * ssd_ld<T, Q>];
};

// A block is one slice of N of dC, or of dB, of a chunk and group. dC comes through H, the state before the
// chunk, dB through E, the gradient of the state after it:
//   dC_i = sum_h exp(s_i) dy_i H + sum_j dCB_ij B_j,   dB_j = sum_h into_state_j x_j E + sum_i dCB_ij C_i
// and each head's part of the first sum, times C_i or B_j, is a term of da.
template <class T, int P>
__global__ void __launch_bounds__(SsdTile<T>::threads)
    ssd_backward_group(SsdProblem<T> p, SsdGradients<T> grad) {
  using Shared = SsdGroupShared<T, P>;
  constexpr int Q = Shared::Q, S = Shared::S;
  MIMO_SHARED(Shared, s);
  const SsdLane l;
  const int c = static_cast<int>(blockIdx.x), slice = static_cast<int>(blockIdx.y) / 2 % p.slices;
  const int group = static_cast<int>(blockIdx.y) / 2 / p.slices, end = static_cast<int>(blockIdx.y) % 2;
  const SsdChunk chunk = p.chunk[c];
  if (chunk.rows == 0) return;
  const bool has_state = p.has_state(chunk), has_gradient = grad.has_gradient(chunk);
  const int per_group = p.heads / p.groups, heads = (end ? has_gradient : has_state) ? per_group : 0;
  const int n0 = slice * S, width = min(S, p.state_cols - n0);
  const SsdMatrix<const T> rows = end ? p.x : grad.dy, own = end ? p.b : p.c, other = end ? p.c : p.b;
  const T* states = end ? grad.dstate_CHPN : p.state_CHPN;
  const auto state_at = [&](const T* at, int h) {
    return at + p.at(c, group * per_group + h) * P * p.state_cols + n0;
  };
  const auto load = [&](int h) {
    auto& to = s.head[h % 2];
    const int head = group * per_group + h;
    ssd_load<P>(to.rows_QP, Q, P, rows.data + chunk.row * rows.ld + head * p.head_dim, rows.ld, chunk.rows,
                p.head_dim, rows.vectors);
    ssd_load<S>(to.state_PN, P, width, state_at(states, h), p.state_cols, P, width, true);
    ssd_load_record(&to.steps, p.steps_CH + p.at(c, head));
    cp_async_commit();
  };

  ssd_load<S>(s.own_QN, Q, width, own.data + chunk.row * own.ld + group * p.state + n0, own.ld, chunk.rows,
              p.state - n0, own.vectors);
  ssd_load<S>(s.other_QN, Q, width, other.data + chunk.row * other.ld + group * p.state + n0, other.ld,
              chunk.rows, p.state - n0, other.vectors);
  cp_async_commit();
  if (heads > 0) load(0);
  for (int i = static_cast<int>(threadIdx.x); i < Q * Q; i += SsdTile<T>::threads) {
    float sum = 0;
    for (int part = 0; part < grad.parts; ++part) sum += grad.dcb_at(p, part, c, group)[i];
    s.dcb_QQ[i / Q * ssd_ld<T, Q> + i % Q] = to_type<T>(sum);
  }

  float acc[S / 8][4];
  ssd_clear(acc);
  const int strip_P = 16 * l.warp * ssd_ld<T, P>;
  for (int h = 0; h < heads; ++h) {
    cp_async_wait<0>();
    __syncthreads();
    if (h + 1 < heads) load(h + 1);
    const auto& head = s.head[h % 2];
    const int64_t at = p.at(c, group * per_group + h);
    float one[S / 8][4];
    ssd_clear(one);
    ssd_product<P / 16, true>(l, one, SsdRows<T>{head.rows_QP + strip_P, ssd_ld<T, P>}, head.state_PN,
                              ssd_ld<T, S>, {0, width / 16});
    float through[2] = {};
#pragma unroll
    for (int n = 0; n < S / 8; ++n) {
      if (8 * n >= width) break;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float weight = (end ? head.steps.into_state : head.steps.from_start)[l.row(e)];
        const float x = weight * one[n][e];
        through[e / 2] += x * static_cast<float>(s.own_QN[l.row(e) * ssd_ld<T, S> + l.column(n, e)]);
        acc[n][e] += x;
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      through[r] += __shfl_xor_sync(kAllLanes, through[r], 1);
      through[r] += __shfl_xor_sync(kAllLanes, through[r], 2);
      if (l.t == 0) grad.through_at(p, end, slice, at)[l.row(2 * r)] = through[r];
    }
    if (end == 0 && has_gradient) {  // <E, H>, once
      const T* e_PN = state_at(grad.dstate_CHPN, h);
      constexpr int V = 16 / sizeof(T);
      float both = 0;
      for (int i = static_cast<int>(threadIdx.x); i < P * S / V; i += SsdTile<T>::threads) {
        const int row = i / (S / V), column = i % (S / V) * V;
        if (column >= width) continue;
        float a[V], b[V];
        cuda::load<V>(a, head.state_PN + row * ssd_ld<T, S> + column);
        cuda::load<V>(b, e_PN + row * p.state_cols + column);
#pragma unroll
        for (int v = 0; v < V; ++v) both += a[v] * b[v];
      }
      both = warp_sum(both);
      if (l.lane == 0) grad.both_at(p, slice, at)[l.warp] = both;
    }
  }
  cp_async_wait<0>();
  __syncthreads();
  const T* dcb = s.dcb_QQ;  // [j, i]
  if (end)
    ssd_product<Q / 16, true>(l, acc, SsdRows<T>{dcb + 16 * l.warp * ssd_ld<T, Q>, ssd_ld<T, Q>}, s.other_QN,
                              ssd_ld<T, S>, {0, width / 16, l.warp, Q});
  else
    ssd_product<Q / 16, true>(l, acc, SsdColumns<T>{dcb + 16 * l.warp, ssd_ld<T, Q>}, s.other_QN,
                              ssd_ld<T, S>, {0, width / 16, 0, l.warp + 1});
  ssd_store<S>(l, acc, s.own_QN, end ? grad.db : grad.dc, chunk.row, int64_t{group} * p.state + n0,
               chunk.rows, p.state - n0);
}

constexpr int kSsdRowWarps = 8;

// A warp a chunk and head: da from its four terms, ddt, and the chunk's part of the parameters' gradients.
template <class T>
__global__ void __launch_bounds__(kSsdRowWarps* kWarp)
    ssd_backward_steps(SsdProblem<T> p, SsdGradients<T> grad) {
  constexpr int R = SsdTile<T>::rows / kWarp;
  const SsdLane l;
  const int c = static_cast<int>(blockIdx.x), h = static_cast<int>(blockIdx.y) * kSsdRowWarps + l.warp;
  const SsdChunk chunk = p.chunk[c];
  if (chunk.rows == 0 || h >= p.heads) return;
  const bool has_state = p.has_state(chunk), has_gradient = grad.has_gradient(chunk);
  const int64_t at = p.at(c, h);
  const SsdSteps<T>& steps = p.steps_CH[at];
  const SsdRowSums<T>& sums = grad.sums[at];
  const float a = -expf(p.a_log[h]);

  const auto through = [&](int end, int i) {
    float sum = 0;
    for (int slice = 0; slice < p.slices; ++slice) sum += grad.through_at(p, end, slice, at)[i];
    return sum;
  };
  float da[R];
#pragma unroll
  for (int r = 0; r < R; ++r) da[r] = sums.inside[r * kWarp + l.lane];
  if (has_state) {  // sum over i >= k
    float beyond = 0;
#pragma unroll
    for (int r = R - 1; r >= 0; --r) {
      float sum = through(0, r * kWarp + l.lane);
#pragma unroll
      for (int step = 1; step < kWarp; step *= 2) {
        const float above = __shfl_down_sync(kAllLanes, sum, step);
        if (l.lane + step < kWarp) sum += above;
      }
      da[r] += sum + beyond;
      beyond += __shfl_sync(kAllLanes, sum, 0);
    }
  }
  if (has_gradient) {  // sum over j < k
    float before = 0;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      float sum = through(1, r * kWarp + l.lane);
#pragma unroll
      for (int step = 1; step < kWarp; step *= 2) {
        const float below = __shfl_up_sync(kAllLanes, sum, step);
        if (l.lane >= step) sum += below;
      }
      const float below = __shfl_up_sync(kAllLanes, sum, 1);
      da[r] += before + (l.lane > 0 ? below : 0);
      before += __shfl_sync(kAllLanes, sum, kWarp - 1);
    }
  }
  if (has_state && has_gradient) {
    float both = 0;
    for (int slice = 0; slice < p.slices; ++slice)
      for (int w = 0; w < SsdTile<T>::warps; ++w) both += grad.both_at(p, slice, at)[w];
#pragma unroll
    for (int r = 0; r < R; ++r) da[r] += steps.from_start[SsdTile<T>::rows - 1] * both;
  }

  float ddt_bias = 0, da_log = 0, dd = 0;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int i = r * kWarp + l.lane;
    if (i >= chunk.rows) continue;
    const float raw = static_cast<float>(p.dt[chunk.row + i][h]) + p.dt_bias[h];
    const float softplus = fmaxf(raw, 0) + log1pf(expf(-fabsf(raw)));
    const float slope = softplus >= p.dt_min && softplus <= p.dt_max ? 1 / (1 + expf(-raw)) : 0;
    const float ddt = (sums.direct[i] + a * da[r]) * slope;
    grad.ddt[chunk.row + i][h] = to_type<T>(ddt);
    ddt_bias += ddt;
    da_log += steps.dt[i] * da[r];
    dd += sums.dyx[i];
  }
  ddt_bias = warp_sum(ddt_bias), da_log = a * warp_sum(da_log), dd = warp_sum(dd);
  if (l.lane > 0) return;
  const int64_t hc = int64_t{p.heads} * p.chunks, to = int64_t{h} * p.chunks + c;
  grad.sums_HC[to] = ddt_bias;
  grad.sums_HC[hc + to] = da_log;
  grad.sums_HC[2 * hc + to] = dd;
}

// A warp a parameter, those that are frozen left out.
template <class T>
__global__ void __launch_bounds__(kSsdRowWarps* kWarp)
    ssd_backward_parameters(SsdProblem<T> p, SsdGradients<T> grad) {
  const SsdLane l;
  const int i = static_cast<int>(blockIdx.x) * kSsdRowWarps + l.warp;
  if (i >= 3 * p.heads) return;
  float* out = i < p.heads ? grad.ddt_bias : i < 2 * p.heads ? grad.da_log : grad.dd;
  if (!out) return;
  const int chunks = p.first_chunk[p.sequences];
  float sum = 0;
  for (int c = l.lane; c < chunks; c += kWarp) sum += grad.sums_HC[int64_t{i} * p.chunks + c];
  sum = warp_sum(sum);
  if (l.lane == 0) out[i % p.heads] += sum;
}

}  // namespace cuda

template <class T>
int64_t workspace(const Cuda& context, const SsdBackward<T>& op) {
  Scratch m;
  cuda::SsdProblem<T> p(op.in);
  p.take(m);
  cuda::SsdGradients<T>(context, op, p).take(m, p);
  return m.bytes();
}

template <class T>
void run(const Cuda& context, const SsdBackward<T>& op) {
  using namespace cuda;
  Scratch m(context.ws);
  SsdProblem<T> p(op.in);
  p.take(m);
  SsdGradients<T> grad(context, op, p);
  grad.take(m, p);
  const SsdWalk<T> forward{p.x, p.b, p.state_in, p.state_CHPN, nullptr},
      reverse{grad.dy, p.c, op.dstate_out, grad.dstate_CHPN, op.dstate_in};
  ssd_states(context, p, forward, &reverse);
  ssd_chunk_gradients(context, p, grad);
  const unsigned chunks = static_cast<unsigned>(p.chunks);
  ssd_dispatch(p, [&]<int P>() {
    cuda::launch<ssd_backward_group<T, P>, SsdGroupShared<T, P>>(
        context, dim3(chunks, static_cast<unsigned>(p.groups * p.slices * 2)), SsdTile<T>::threads, p, grad);
  });
  cuda::launch<ssd_backward_steps<T>>(context,
                                      dim3(chunks, static_cast<unsigned>(ceil_div(p.heads, kSsdRowWarps))),
                                      kSsdRowWarps * kWarp, p, grad);
  if (op.ddt_bias || op.da_log || op.dd)
    cuda::launch<ssd_backward_parameters<T>>(context,
                                             dim3(static_cast<unsigned>(ceil_div(3 * p.heads, kSsdRowWarps))),
                                             kSsdRowWarps * kWarp, p, grad);
}

MIMO_CUDA_KERNEL_WITH_WORKSPACE(SsdBackward);

}  // namespace mimo
