// What the forward and the backward of SSD share: the problem in its chunks, its scratch, and the kernels
// that come first (ssd_states.cu): the table of chunks, the time steps, and the walks over the chunks of a
// sequence that leave the state before each (and, in reverse, the gradient of the state after it).
//
// Legend: C chunks of Q rows, H heads, P head_dim padded to a whole tile, N state padded to 16, G groups.
// Chunks are cut by the kernels, Q = SsdTile<T>::rows whatever the caller's `chunk` is; none spans two
// sequences. The host does not know cu, so grids count tokens / Q + sequences chunks, and those beyond the
// real ones have no rows.
#pragma once
#include "kernels/cuda/ssd_tile.cuh"
#include "kernels/portable/scratch.h"
#include "kernels/ssd.h"

namespace mimo::cuda {

struct SsdChunk {
  int row, rows;     // the first, and how many; 0: no chunk
  int begins, ends;  // whether its sequence does
};

// Of a chunk and head. s, the inclusive cumsum of dt A, is a sum of two floats, high + low: with one, the
// error of exp(s_i - s_j) would grow with |s|, which long steps bring to 1e3. Rows beyond the chunk have dt 0
// and repeat s.
template <class T>
struct alignas(16) SsdSteps {
  static constexpr int Q = SsdTile<T>::rows;
  float dt[Q], high[Q], low[Q];
  float from_start[Q];  // exp(s_i): how much of the state before the chunk is left at row i
  float into_state[Q];  // exp(s_last - s_j) dt_j: the weight of row j in the state after it
  // exp(s_i - s_j), at most 1.
  __device__ float decay(int i, int j) const {
    return ssd_exp<T>(fminf((high[i] - high[j]) + (low[i] - low[j]), 0));
  }
};

template <class T>
struct SsdProblem {
  int sequences, heads, head_dim, groups, state;
  const int32_t* cu;
  SsdMatrix<const T> x, b, c;
  Rows<const T> dt;
  const float *dt_bias, *a_log, *d;
  float dt_min, dt_max;
  const float* state_in;

  int chunks, state_cols, slices;  // at most; N padded; slices of N
  int32_t* first_chunk;            // [sequences + 1]
  SsdChunk* chunk;                 // [chunks]
  SsdSteps<T>* steps_CH;
  T* state_CHPN;  // before each chunk

  explicit SsdProblem(const SsdInputs<T>& in)
      : sequences(in.sequences),
        heads(in.heads),
        head_dim(in.head_dim),
        groups(in.groups),
        state(in.state),
        cu(in.cu),
        x(ssd_matrix(in.x, in.head_dim)),
        b(ssd_matrix(in.b, in.state)),
        c(ssd_matrix(in.c, in.state)),
        dt(in.dt),
        dt_bias(in.dt_bias),
        a_log(in.a_log),
        d(in.d),
        dt_min(in.dt_min),
        dt_max(in.dt_max),
        state_in(in.state_in),
        chunks(static_cast<int>(in.tokens / SsdTile<T>::rows) + in.sequences),
        state_cols(static_cast<int>(ceil_div(in.state, 16)) * 16),
        slices(static_cast<int>(ceil_div(in.state, SsdTile<T>::slice))) {
    if (heads < 1 || groups < 1 || heads % groups || state < 1 || head_dim < 1 || head_dim > 128)
      throw std::invalid_argument(
          "ssd: heads must be a multiple of groups, and head_dim at most 128 on CUDA");
  }
  void take(Scratch& m) {
    first_chunk = m.take<int32_t>(sequences + 1);
    chunk = m.take<SsdChunk>(chunks);
    steps_CH = m.take<SsdSteps<T>>(int64_t{chunks} * heads);
    state_CHPN = take_states(m);
  }
  T* take_states(Scratch& m) const {
    return m.take<T>(int64_t{chunks} * heads * padded_head_dim() * state_cols);
  }
  int padded_head_dim() const {
    return head_dim <= 16 ? 16 : head_dim <= 64 ? 64 : head_dim <= 80 ? 80 : 128;
  }
  // In how many parts the heads of a group are taken, so that few chunks still fill a GPU.
  int parts(int sms) const {
    const int per_group = heads / groups;
    int n = 1;
    while (n < per_group && int64_t{chunks} * groups * n < 4 * sms) n *= 2;
    return static_cast<int>(ceil_div(per_group, ceil_div(per_group, n)));
  }
  __device__ int64_t at(int chunk_index, int h) const { return int64_t{chunk_index} * heads + h; }
  __device__ bool has_state(const SsdChunk& at) const { return !at.begins || state_in; }
};

// Calls f.template operator()<P>() for the padded head_dim.
template <class T, class F>
void ssd_dispatch(const SsdProblem<T>& p, F&& f) {
  switch (p.padded_head_dim()) {
    case 16:
      return f.template operator()<16>();
    case 64:
      return f.template operator()<64>();
    case 80:
      return f.template operator()<80>();
    default:
      return f.template operator()<128>();
  }
}

// One way over the chunks of every sequence: a state starts from `start` (or zero), is written to `states` at
// every chunk, then decays and gains w_j x_j b_j^T of its rows, and ends in `finish` unless that is null.
// Forward, with x, B and into_state, that is the state before each chunk; in reverse, with dy, C and
// from_start, the gradient E of the state after it. States that are zero, no start yet, are not written.
template <class T>
struct SsdWalk {
  SsdMatrix<const T> x, b;
  const float* start;
  T* states;  // [C, H, P, N]
  float* finish;
};

// Fills the table and the steps, and walks forward and, unless null, in reverse.
template <class T>
void ssd_states(const Cuda&, const SsdProblem<T>&, const SsdWalk<T>& forward, const SsdWalk<T>* reverse);

}  // namespace mimo::cuda
