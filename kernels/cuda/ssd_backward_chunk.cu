// The part of SSD's backward inside a chunk, in the transposed view: rows j, columns i >= j, so that both dx
// and the sums over i are rows of a warp.
//
// As in the forward, a block takes a chunk and heads of one group, holds B C^T in registers (and here the sum
// of dCB over its heads), and no Q x Q matrix leaves the warp but the sum. B and E come in slices of N, one
// ahead. Four squares of registers a thread is what bounds Q. Not measured.
#include "kernels/cuda/ssd_backward.cuh"

namespace mimo {
namespace cuda {

template <class T, int P>
struct SsdChunkShared {
  static constexpr int Q = SsdTile<T>::rows, S = SsdTile<T>::slice, right_rows = P > Q ? P : Q;
  struct Slice {
    T b_QN[Q * ssd_ld<T, S>], right[right_rows * ssd_ld<T, S>];  // C [Q, N], then E [P, N]
  } slice[2];
  struct Head {
    T x_QP[Q * ssd_ld<T, P>], dy_QP[Q * ssd_ld<T, P>];
    SsdSteps<T> steps;
  } head[2];
  T dx_QP[Q * ssd_ld<T, P>];
  SsdScratch<T> scratch;
  float inside[SsdTile<T>::warps][Q];
};

// Of columns i of a tile, the sums over i' >= i along each row, those beyond the tile being in `tail`: m and
// the result hold elements as acc does.
__device__ inline void ssd_sums_to_end(const SsdLane& l, const float (&m)[4], float (&tail)[2],
                                       float (&sum)[4]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float pair = m[2 * r] + m[2 * r + 1];
    float end = pair;  // over this lane and those to its right
    const float one = __shfl_down_sync(kAllLanes, end, 1, 4);
    if (l.t < 3) end += one;
    const float two = __shfl_down_sync(kAllLanes, end, 2, 4);
    if (l.t < 2) end += two;
    const float right = __shfl_down_sync(kAllLanes, end, 1, 4), all = __shfl_sync(kAllLanes, end, 0, 4);
    const float beyond = l.t < 3 ? tail[r] + right : tail[r];
    sum[2 * r] = beyond + pair;
    sum[2 * r + 1] = beyond + m[2 * r + 1];
    tail[r] += all;
  }
}

template <class T, int P>
__global__ void __launch_bounds__(SsdTile<T>::threads)
    ssd_backward_chunk(SsdProblem<T> p, SsdGradients<T> grad) {
  using Shared = SsdChunkShared<T, P>;
  constexpr int Q = Shared::Q, S = Shared::S;
  MIMO_SHARED(Shared, s);
  const SsdLane l;
  const int c = static_cast<int>(blockIdx.x), group = static_cast<int>(blockIdx.y) / grad.parts;
  const int per_group = p.heads / p.groups, part = static_cast<int>(ceil_div(per_group, grad.parts));
  const int skip = static_cast<int>(blockIdx.y) % grad.parts * part, heads = min(part, per_group - skip);
  const int first_head = group * per_group + skip;
  const SsdChunk chunk = p.chunk[c];
  if (chunk.rows == 0) return;
  const bool has_gradient = grad.has_gradient(chunk);
  const int stages = has_gradient ? p.slices : 1;  // of a head

  // Stages: the slices of B and C, then for every head its x and dy and the slices of B and E.
  const auto load = [&](int i) {
    const int h = i < p.slices ? -1 : (i - p.slices) / stages, slice = h < 0 ? i : (i - p.slices) % stages;
    const int n0 = slice * S, width = min(S, p.state_cols - n0);
    auto& to = s.slice[i % 2];
    if (h < 0 || has_gradient)
      ssd_load<S>(to.b_QN, Q, width, p.b.data + chunk.row * p.b.ld + group * p.state + n0, p.b.ld, chunk.rows,
                  p.state - n0, p.b.vectors);
    if (h < 0)
      ssd_load<S>(to.right, Q, width, p.c.data + chunk.row * p.c.ld + group * p.state + n0, p.c.ld,
                  chunk.rows, p.state - n0, p.c.vectors);
    else if (has_gradient)
      ssd_load<S>(to.right, P, width, grad.dstate_CHPN + p.at(c, first_head + h) * P * p.state_cols + n0,
                  p.state_cols, P, width, true);
    if (h >= 0 && slice == 0) {
      auto& head = s.head[h % 2];
      const int column = (first_head + h) * p.head_dim;
      ssd_load<P>(head.x_QP, Q, P, p.x.data + chunk.row * p.x.ld + column, p.x.ld, chunk.rows, p.head_dim,
                  p.x.vectors);
      ssd_load<P>(head.dy_QP, Q, P, grad.dy.data + chunk.row * grad.dy.ld + column, grad.dy.ld, chunk.rows,
                  p.head_dim, grad.dy.vectors);
      ssd_load_record(&head.steps, p.steps_CH + p.at(c, first_head + h));
    }
    cp_async_commit();
  };
  const int total = p.slices + heads * stages;
  const auto arrive = [&](int i) {
    cp_async_wait<0>();
    __syncthreads();
    if (i + 1 < total) load(i + 1);
  };

  load(0);
  int i = 0;
  float bc[Q / 8][4], dbc[Q / 8][4];
  ssd_clear(bc);
  ssd_clear(dbc);
  const int strip_N = 16 * l.warp * ssd_ld<T, S>, strip_P = 16 * l.warp * ssd_ld<T, P>;
  for (; i < p.slices; ++i) {
    arrive(i);
    const int steps = min(S, p.state_cols - i * S) / 16;
    ssd_product<S / 16, false>(l, bc, SsdRows<T>{s.slice[i % 2].b_QN + strip_N, ssd_ld<T, S>},
                               s.slice[i % 2].right, ssd_ld<T, S>, {l.warp, Q, 0, steps});
  }
  for (int h = 0; h < heads; ++h) {
    const auto& head = s.head[h % 2];
    SsdRowSums<T>& sums = grad.sums[p.at(c, first_head + h)];
    float u[P / 8][4];
    ssd_clear(u);
    for (int slice = 0; slice < stages; ++slice, ++i) {
      arrive(i);
      if (!has_gradient) continue;
      const int steps = min(S, p.state_cols - slice * S) / 16;
      ssd_product<S / 16, false>(l, u, SsdRows<T>{s.slice[i % 2].b_QN + strip_N, ssd_ld<T, S>},
                                 s.slice[i % 2].right, ssd_ld<T, S>, {0, P, 0, steps});
    }
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      const float to_end = head.steps.decay(Q - 1, l.row(e));
#pragma unroll
      for (int n = 0; n < P / 8; ++n) u[n][e] *= to_end, u[n][e + 1] *= to_end;
    }

    float square[Q / 8][4];  // x_j . dy_i, then W
    ssd_clear(square);
    ssd_product<P / 16, false>(l, square, SsdRows<T>{head.x_QP + strip_P, ssd_ld<T, P>}, head.dy_QP,
                               ssd_ld<T, P>, {l.warp, Q});
    float tail[2] = {};
#pragma unroll
    for (int n = Q / 8 - 1; n >= 0; --n) {
      float column[2] = {};  // of this warp's rows j
      if (n >= 2 * l.warp) {
        float m[4], sum[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int j = l.row(e), at = l.column(n, e);
          if (at == j) sums.dyx[j] = square[n][e];
          const float decay = at >= j ? head.steps.decay(at, j) : 0;
          const float d = square[n][e] * decay * head.steps.dt[j];
          dbc[n][e] += d;
          m[e] = bc[n][e] * d;
          square[n][e] = bc[n][e] * decay;
        }
        ssd_sums_to_end(l, m, tail, sum);
#pragma unroll
        for (int e = 0; e < 4; ++e) column[e % 2] += l.column(n, e) > l.row(e) ? sum[e] : 0;
#pragma unroll
        for (int step = 4; step < kWarp; step *= 2) {
          column[0] += __shfl_xor_sync(kAllLanes, column[0], step);
          column[1] += __shfl_xor_sync(kAllLanes, column[1], step);
        }
      }
      if (l.g == 0) {
        s.inside[l.warp][l.column(n, 0)] = column[0];
        s.inside[l.warp][l.column(n, 1)] = column[1];
      }
    }
    const SsdHeld<T, Q / 8> held(l, square, s.scratch.strip(l.warp));
    ssd_product<Q / 16, true>(l, u, held, head.dy_QP, ssd_ld<T, P>, {0, P, l.warp, Q});

    float direct[2] = {};
    const float d = p.d[first_head + h];
#pragma unroll
    for (int n = 0; n < P / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int at = l.row(e) * ssd_ld<T, P> + l.column(n, e);
        direct[e / 2] += static_cast<float>(head.x_QP[at]) * u[n][e];
        u[n][e] = head.steps.dt[l.row(e)] * u[n][e] + d * static_cast<float>(head.dy_QP[at]);
      }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      direct[r] += __shfl_xor_sync(kAllLanes, direct[r], 1);
      direct[r] += __shfl_xor_sync(kAllLanes, direct[r], 2);
      if (l.t == 0) sums.direct[l.row(2 * r)] = direct[r];
    }
    ssd_store<P>(l, u, s.dx_QP, grad.dx, chunk.row, int64_t{first_head + h} * p.head_dim, chunk.rows,
                 p.head_dim);
    __syncthreads();
    const int k = static_cast<int>(threadIdx.x);
    if (k < Q) {
      float inside = 0;
#pragma unroll
      for (int w = 0; w < SsdTile<T>::warps; ++w) inside += s.inside[w][k];
      sums.inside[k] = inside;
    }
  }
  float* out = grad.dcb_at(p, static_cast<int>(blockIdx.y) % grad.parts, c, group);
#pragma unroll
  for (int n = 0; n < Q / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; e += 2)
      ssd_store_pair(out + l.row(e) * Q + l.column(n, 0), dbc[n][e], dbc[n][e + 1]);
}

template <class T>
void ssd_chunk_gradients(const Cuda& context, const SsdProblem<T>& p, const SsdGradients<T>& grad) {
  const dim3 grid(static_cast<unsigned>(p.chunks), static_cast<unsigned>(p.groups * grad.parts));
  ssd_dispatch(p, [&]<int P>() {
    launch<ssd_backward_chunk<T, P>, SsdChunkShared<T, P>>(context, grid, SsdTile<T>::threads, p, grad);
  });
}

template void ssd_chunk_gradients(const Cuda&, const SsdProblem<float>&, const SsdGradients<float>&);
template void ssd_chunk_gradients(const Cuda&, const SsdProblem<bf16>&, const SsdGradients<bf16>&);

}  // namespace cuda
}  // namespace mimo
