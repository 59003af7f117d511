// A row in registers: a team of threads reads it once, 16 bytes at a time, and keeps it for as many passes as
// the formula takes. A thread keeps 16 elements of each operand: enough bytes under way at the occupancy that
// this leaves, also in backward kernels, which keep sums of 16 columns as well.
//
// Teams: 8 threads for rows of at most 128 elements, so that no lane of a warp is idle; a warp up to 512; a
// block up to 8192. Rows that are longer or do not lie on 16-byte boundaries are read again by every pass, an
// element at a time, by a block (Reread).
#pragma once
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo::cuda {

constexpr int kRowElements = 16;       // of a thread
constexpr int kTeamThreads = 256;      // of a block of several teams
constexpr int kBlockRowThreads = 512;  // of a block that is one team, at most

struct TeamShared {
  float sum[2][2][kWarp];
};

// The threads that have a row: `Lanes` of a warp, or the block where Lanes is 0.
template <int Lanes, bool Held = true>
class Team {
 public:
  static constexpr bool kBlock = Lanes == 0, kHeld = Held;
  static constexpr int kLanes = kBlock ? kWarp : Lanes;  // of the team in one warp
  static constexpr int kTeams = kBlock ? 1 : kTeamThreads / kLanes;
  static constexpr int kMostThreads = kBlock ? kBlockRowThreads : kTeamThreads;
  template <class T>
  static constexpr int kVectorOf = Held ? kVector<T> : 1;  // elements that are read at once

  __device__ explicit Team(TeamShared& shared) : shared_(shared) {}
  __device__ int index() const { return kBlock ? 0 : static_cast<int>(threadIdx.x) / kLanes; }
  __device__ int rank() const { return static_cast<int>(threadIdx.x) - index() * kLanes; }

  // The sum of each x[k] over the team, to all its threads. All threads of the block call it.
  template <int K>
  __device__ void sum(float (&x)[K]) {
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int step = kLanes / 2; step > 0; step /= 2) x[k] += __shfl_xor_sync(kAllLanes, x[k], step);
    if constexpr (kBlock) {
      // Two places in turn, so that one barrier a sum is enough: whoever writes one again has passed the
      // other's barrier, which all reach after they have read this one.
      const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
      auto& place = shared_.sum[turn_];
      turn_ ^= 1;
#pragma unroll
      for (int k = 0; k < K; ++k)
        if (lane == 0) place[k][warp] = x[k];
      __syncthreads();
#pragma unroll
      for (int k = 0; k < K; ++k) x[k] = warp_sum(lane < warps ? place[k][lane] : 0.f);
    }
  }
  __device__ float sum(float x) {
    float one[1] = {x};
    sum(one);
    return one[0];
  }

  // Whether some row of the warp's (of the block's, where that is the team) has what `mine` says of this one:
  // so that a repetition with sums in it is all threads'.
  __device__ bool any(bool mine) const {
    if constexpr (kBlock) return mine;
    return __any_sync(kAllLanes, mine) != 0;
  }

  // f(i, c) for every vector i of this thread, of N elements, c its first column. Those of a warp are
  // neighbours, i * kLanes * N apart: one address serves them all.
  template <int N, class F>
  __device__ void for_columns(int cols, F&& f) const {
    if constexpr (Held) {
      constexpr int V = kRowElements / N;
      const int first = (rank() / kLanes * kLanes * V + rank() % kLanes) * N;
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const int c = first + i * kLanes * N;
        if (c < cols) f(i, c);
      }
    } else {
      for (int c = rank(); c < cols; c += static_cast<int>(blockDim.x)) f(0, c);
    }
  }

 private:
  TeamShared& shared_;
  int turn_ = 0;
};
using Reread = Team<0, false>;

// What a thread has of a row.
template <class T, class Team>
class Row {
 public:
  static constexpr int N = Team::template kVectorOf<T>;

  __device__ Row(const Team& team, const T* row, int cols) : row_(row) {
    if constexpr (Team::kHeld)
      team.template for_columns<N>(
          cols, [&](int i, int c) { vector_[i] = *reinterpret_cast<const uint4*>(row + c); });
  }
  __device__ void get(float (&x)[N], int i, int c) const {
    if constexpr (Team::kHeld)
      unpack<T>(x, vector_[i]);
    else
      load<N>(x, row_ + c);
  }

 private:
  const T* row_;
  uint4 vector_[Team::kHeld ? kRowElements / N : 1];
};

// Squares are summed of scaled elements. The second scale is for rows whose squares leave the range of float
// with the first: then some element is above 2^40, and what the scale makes of the others does not count.
__device__ inline float row_scale(int pass) { return pass == 0 ? 1.f : 0x1p-80f; }

// 1 / sqrt(mean of squares + eps) of a row of `cols` elements; squares(scale): this thread's sum of the
// squares of its elements, scaled.
template <class Team, class Squares>
__device__ inline float inverse_rms(Team& team, int cols, float eps, Squares&& squares) {
  float r = 0;
  bool done = false;
#pragma unroll 1
  for (int pass = 0; pass < 2; ++pass) {
    const float scale = row_scale(pass);
    const float sum = team.sum(squares(scale));
    if (!done) r = scale / sqrtf(sum / static_cast<float>(cols) + eps * scale * scale);
    done = sum < INFINITY;
    if (!team.any(!done)) break;
  }
  return r;
}

// Calls rows.operator()<Team>(threads) with the team for rows of `cols` elements of T.
template <class T, class F>
void with_team(int64_t cols, bool vectors_aligned, F&& rows) {
  if (!vectors_aligned || cols % kVector<T> != 0 || cols > kBlockRowThreads * kRowElements)
    return rows.template operator()<Reread>(kTeamThreads);
  if (cols <= 8 * kRowElements) return rows.template operator()<Team<8>>(kTeamThreads);
  if (cols <= kWarp * kRowElements) return rows.template operator()<Team<kWarp>>(kTeamThreads);
  rows.template operator()<Team<0>>(static_cast<int>(ceil_div(cols, kWarp * kRowElements)) * kWarp);
}

// Blocks for `rows` rows, one a team.
template <class Team>
dim3 row_grid(int64_t rows, int groups = 1) {
  return dim3(static_cast<unsigned>(ceil_div(rows, Team::kTeams)), static_cast<unsigned>(groups));
}

}  // namespace mimo::cuda
