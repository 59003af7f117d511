// How the SSD kernels cut their work. A task is one sequence and a block of heads of one group; it walks its
// chunks in order. Legend: Q chunk rows, N state, P head_dim; Qp, Np, Pp padded to whole vectors. States are
// kept transposed, [N, Pp], so that every product runs along contiguous rows.
#pragma once
#include "kernels/cpu/scan.h"
#include "kernels/cpu/scan_tile.h"
#include "kernels/ssd.h"

namespace mimo::cpu {

template <class A>
struct SsdTiles {
  int q, n, p, qp, np, pp;  // q: the longest chunk
  int block, blocks;        // heads of a task, tasks of a group and sequence
  int64_t tasks;

  // The chunk length is ours to choose: work on the triangle grows with Q, and 64 rows fill the registers'
  // tiles. Few sequences and groups: split the heads of a group, at the price of repeating C B^T.
  template <class T>
  explicit SsdTiles(const SsdInputs<T>& in)
      : q(std::max(1, std::min(in.chunk, 64))),
        n(in.state),
        p(in.head_dim),
        qp(padded<A>(q)),
        np(padded<A>(n)),
        pp(padded<A>(p)),
        block(in.heads / in.groups) {
    while (block > 1 && int64_t{in.sequences} * (in.heads / block) < 16) block = (block + 1) / 2;
    const int per_group = in.heads / in.groups;
    blocks = (per_group + block - 1) / block;
    tasks = int64_t{in.sequences} * in.groups * blocks;
  }
};

struct SsdTask {
  int sequence, group, block, first_head, heads;
  template <class T, class A>
  SsdTask(const SsdInputs<T>& in, const SsdTiles<A>& t, const int32_t* order, int64_t i) {
    const int per_group = in.heads / in.groups;
    block = static_cast<int>(i % t.blocks);
    group = static_cast<int>(i / t.blocks % in.groups);
    sequence = order[i / t.blocks / in.groups];
    first_head = group * per_group + block * t.block;
    heads = std::min(t.block, per_group - block * t.block);
  }
};

// For parallel_tasks: of the forward, as bytes moved.
template <class T>
int64_t ssd_work(const SsdInputs<T>& in) {
  return in.tokens * in.heads * in.head_dim * (in.state + std::min(in.chunk, 64));
}

template <class T>
void check_ssd(const SsdInputs<T>& in) {
  const auto fail = [](const char* what, int expected, int found) {
    throw std::invalid_argument(std::string("ssd: ") + what + ": expected " +
                                (expected ? "a divisor of " + std::to_string(expected) : "at least 1") +
                                ", found " + std::to_string(found));
  };
  if (in.heads < 1) fail("heads", 0, in.heads);
  if (in.groups < 1 || in.heads % in.groups) fail("groups", in.heads, in.groups);
  if (in.chunk < 1) fail("chunk", 0, in.chunk);
  if (in.state < 1) fail("state", 0, in.state);
  if (in.head_dim < 1) fail("head_dim", 0, in.head_dim);
}

// dt of rows [row, row + n) of head h; slope (or null): d dt / d raw.
template <class T, class A>
void time_steps(const SsdInputs<T>& in, int64_t row, int n, int h, A* dt, A* slope) {
  const T* raw = in.dt[row] + h;
  const A bias = in.dt_bias[h], low = in.dt_min, high = in.dt_max;
  for (int i = 0; i < n; ++i) dt[i] = A(raw[i * in.dt.ld]) + bias;
  if (slope) {
#pragma omp simd
    for (int i = 0; i < n; ++i) {
      const A y = softplus(dt[i]);
      slope[i] = y >= low && y <= high ? softplus_slope(dt[i]) : A(0);
    }
  }
#pragma omp simd
  for (int i = 0; i < n; ++i) dt[i] = std::min(std::max(softplus(dt[i]), low), high);
}

// s, the inclusive cumsum of a dt inside a chunk, as a sum of two numbers: with one, the error of exp(s_i -
// s_j) would grow with |s|, which long steps bring to 1e3. The last value is repeated in the padding.
template <class A>
struct DecaySums {
  A *high, *low;
  DecaySums(Scratch& m, int n) : high(m.take<A>(n)), low(m.take<A>(n)) {}

  void set(int n, int padded_n, double a, const A* dt) {
    double sum = 0;
    for (int i = 0; i < padded_n; ++i) {
      if (i < n) sum += a * dt[i];
      high[i] = A(sum);
      low[i] = A(sum - high[i]);
    }
  }
  // exp(s_i - s_j), at most 1.
  static Vec<A> decay(Vec<A> high_i, Vec<A> low_i, Vec<A> high_j, Vec<A> low_j) {
    const Vec<A> x = (high_i - high_j) + (low_i - low_j);
    return fast_exp(x < A(0) ? x : Vec<A>{});
  }
  // to_end_j = exp(s_last - s_j), from_start_i = exp(s_i).
  void weights(int padded_n, A* to_end, A* from_start) const {
    const A last = high[padded_n - 1], last_low = low[padded_n - 1];
#pragma omp simd
    for (int i = 0; i < padded_n; ++i) {
      to_end[i] = fast_exp(std::min((last - high[i]) + (last_low - low[i]), A(0)));
      from_start[i] = fast_exp(high[i]);
    }
  }
};

// x_j *= w_j, row by row.
template <class A>
void scale_rows(int rows, int cols, const A* w, A* x) {
  for (int i = 0; i < rows; ++i, x += cols) {
#pragma omp simd
    for (int c = 0; c < cols; ++c) x[c] *= w[i];
  }
}

// Every row times w, element by element.
template <class A>
void scale_columns(int rows, int cols, const A* w, A* x) {
  for (int i = 0; i < rows; ++i, x += cols) {
#pragma omp simd
    for (int c = 0; c < cols; ++c) x[c] *= w[c];
  }
}

// state [P, N] to the tile [N, Pp] and back; null is zero.
template <class A>
void load_state(const SsdTiles<A>& t, const A* state, A* tile) {
  if (state)
    transpose(t.p, t.n, state, t.n, tile, t.pp);
  else
    std::fill_n(tile, int64_t{t.n} * t.pp, A(0));
}
template <class A>
void store_state(const SsdTiles<A>& t, const A* tile, A* state) {
  transpose(t.n, t.p, tile, t.pp, state, t.n);
}

// state = decay state + B^T X with B [rows, Np], X [rows, Pp]; decay = 0 never reads the state.
template <class A>
void update_state(const SsdTiles<A>& t, int rows, A decay, const A* b_QN, const A* x_QP, A* state_NP) {
  if (decay == A(0))
    return tile::product<true, false>(t.n, t.pp, rows, b_QN, t.np, x_QP, t.pp, state_NP, t.pp);
  const int64_t size = int64_t{t.n} * t.pp;
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) state_NP[i] *= decay;
  tile::product<true, true>(t.n, t.pp, rows, b_QN, t.np, x_QP, t.pp, state_NP, t.pp);
}

}  // namespace mimo::cpu
