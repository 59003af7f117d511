// What the kernels of SSD's backward share. The maths, per chunk and head, with W_ij = C_i . B_j exp(s_i -
// s_j) for j <= i, H the state before the chunk and E the gradient of the state after it:
//   u_j = sum_i W_ij dy_i + exp(s_last - s_j) E B_j,    dx_j = dt_j u_j + D dy_j
//   dCB_ij = exp(s_i - s_j) dt_j dy_i . x_j, summed over the heads of a group
//   dC_i = sum_j dCB_ij B_j + exp(s_i) dy_i H,          dB_j = sum_i dCB_ij C_i + into_state_j x_j E
//   da_k = sum_{i >= k, j < k} C_i . B_j dCB_ij + sum_{i >= k} exp(s_i) dy_i H . C_i
//        + sum_{j < k} into_state_j x_j E . B_j + exp(s_last) <E, H>
//   ddt_k = A da_k + x_k . u_k
// da is a sum of partial terms, never of differences. ssd_backward_chunk makes dx, dCB and the first term of
// da; ssd_backward_group the other sums over heads; ssd_backward_steps puts da together.
#pragma once
#include "kernels/cuda/ssd.cuh"

namespace mimo::cuda {

// Of a chunk and head, for every row.
template <class T>
struct SsdRowSums {
  static constexpr int Q = SsdTile<T>::rows;
  float direct[Q], inside[Q], dyx[Q];  // x . u; the first term of da; dy . x
};

template <class T>
struct SsdGradients {
  static constexpr int Q = SsdTile<T>::rows;
  SsdMatrix<const T> dy;
  SsdMatrix<T> dx, db, dc;
  Rows<T> ddt;
  float *ddt_bias, *da_log, *dd;
  const float* dstate_out;

  int parts;            // of a group's heads, in ssd_backward_chunk
  T* dstate_CHPN;       // E
  float* dcb;           // [parts, C, G, j, i]
  SsdRowSums<T>* sums;  // [C, H]
  float* through;       // [2: H, E; slices, C, H, Q], the terms of da's second and third sum
  float* both;          // [slices, C, H, warps], parts of <E, H>
  float* sums_HC;       // [3: ddt_bias, da_log, dd; H, C]

  SsdGradients(const Cuda& context, const SsdBackward<T>& op, const SsdProblem<T>& p)
      : dy(ssd_matrix(op.dy, op.in.head_dim)),
        dx(ssd_matrix(op.dx, op.in.head_dim)),
        db(ssd_matrix(op.db, op.in.state)),
        dc(ssd_matrix(op.dc, op.in.state)),
        ddt(op.ddt),
        ddt_bias(op.ddt_bias),
        da_log(op.da_log),
        dd(op.dd),
        dstate_out(op.dstate_out),
        parts(p.parts(context.sms)) {}
  void take(Scratch& m, const SsdProblem<T>& p) {
    const int64_t ch = int64_t{p.chunks} * p.heads;
    dstate_CHPN = p.take_states(m);
    dcb = m.take<float>(int64_t{parts} * p.chunks * p.groups * Q * Q);
    sums = m.take<SsdRowSums<T>>(ch);
    through = m.take<float>(2 * p.slices * ch * Q);
    both = m.take<float>(p.slices * ch * SsdTile<T>::warps);
    sums_HC = m.take<float>(3 * ch);
  }
  __device__ bool has_gradient(const SsdChunk& at) const { return !at.ends || dstate_out; }
  __device__ float* dcb_at(const SsdProblem<T>& p, int part, int chunk, int group) const {
    return dcb + ((int64_t{part} * p.chunks + chunk) * p.groups + group) * Q * Q;
  }
  __device__ float* through_at(const SsdProblem<T>& p, int end, int slice, int64_t chunk_head) const {
    return through + ((int64_t{end} * p.slices + slice) * p.chunks * p.heads + chunk_head) * Q;
  }
  __device__ float* both_at(const SsdProblem<T>& p, int slice, int64_t chunk_head) const {
    return both + (int64_t{slice} * p.chunks * p.heads + chunk_head) * SsdTile<T>::warps;
  }
};

// ssd_backward_chunk.cu: dx, dCB, sums.
template <class T>
void ssd_chunk_gradients(const Cuda&, const SsdProblem<T>&, const SsdGradients<T>&);

}  // namespace mimo::cuda
