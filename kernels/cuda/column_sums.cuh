// Sums over rows in two stages of a fixed order. First the blocks of a kernel each sum the rows that they
// walk and leave [slices, cols] partial sums; then column_sums adds these up, here.
#pragma once
#include "kernels/cuda/row.cuh"

namespace mimo::cuda {

// A warp reads 32 columns of every kSumWarps-th row; so even a few hundred columns fill the machine.
constexpr int kSumWarps = 16;
struct ColumnSumsShared {
  float sum[kSumWarps][kWarp];
};

// y[c] += sum over rows of x[r, c].
template <class T>
__global__ void __launch_bounds__(kSumWarps* kWarp)
    column_sums(int64_t rows, int64_t cols, const T* x, int64_t x_ld, float* y) {
  MIMO_SHARED(ColumnSumsShared, s);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t c = int64_t{blockIdx.x} * kWarp + lane;
  float sum = 0;
  if (c < cols) {
#pragma unroll 8
    for (int64_t r = warp; r < rows; r += kSumWarps) sum += static_cast<float>(x[r * x_ld + c]);
  }
  s.sum[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || c >= cols) return;
  sum = 0;
#pragma unroll
  for (int w = 0; w < kSumWarps; ++w) sum += s.sum[w][lane];
  y[c] += sum;
}

template <class T>
void add_column_sums(const Cuda& context, int64_t rows, int64_t cols, const T* x, int64_t x_ld, float* y) {
  if (rows == 0) return;
  launch<column_sums<T>, ColumnSumsShared>(context, dim3(static_cast<unsigned>(ceil_div(cols, kWarp))),
                                           kSumWarps * kWarp, rows, cols, x, x_ld, y);
}

// The first stage of a kernel whose teams (row.cuh) walk rows: sums of this thread's columns, in registers.
// `mine` is the block's row of partial sums, or null; where rows are not held the sums lie there at once.
template <class T, class Team>
class ColumnSums {
 public:
  static constexpr int N = Team::template kVectorOf<T>;

  __device__ ColumnSums(const Team& team, int cols, float* mine) : mine_(mine) {
    if constexpr (!Team::kHeld)
      if (mine) team.template for_columns<N>(cols, [&](int, int c) { mine[c] = 0; });
  }
  __device__ void add(int i, int c, const float (&x)[N]) {
    if constexpr (Team::kHeld) {
#pragma unroll
      for (int e = 0; e < N; ++e) sum_[i][e] += x[e];
    } else if (mine_) {
      mine_[c] += x[0];
    }
  }

  // `shared`: [kTeams][cols], where the block has several teams.
  __device__ void write(const Team& team, int cols, float* shared) const {
    if (!Team::kHeld || !mine_) return;
    float* to = Team::kBlock ? mine_ : shared + team.index() * cols;
    team.template for_columns<N>(cols, [&](int i, int c) { store<N>(to + c, sum_[i]); });
    if (Team::kBlock) return;
    __syncthreads();
    for (int c = static_cast<int>(threadIdx.x); c < cols; c += kTeamThreads) {
      float all = 0;
      for (int t = 0; t < Team::kTeams; ++t) all += shared[t * cols + c];
      mine_[c] = all;
    }
    __syncthreads();  // before `shared` is written again
  }

 private:
  float* mine_;
  float sum_[Team::kHeld ? kRowElements / N : 1][N] = {};
};

// Shared memory of such a kernel.
template <class Team>
struct ColumnSumsOfTeams {
  TeamShared team;
  float columns[Team::kBlock ? 1 : kTeamThreads * kRowElements];
};

// Blocks that walk the rows of a group: as many as run at once where an SM takes `sm_threads` threads, but
// none for a few rows, since each costs a row of partial sums.
template <class Team>
int64_t row_slices(const Cuda& context, int64_t rows, int groups, int threads, int sm_threads) {
  constexpr int kRowsOfTeam = 4;
  const int64_t most = ceil_div(int64_t{context.sms} * sm_threads, int64_t{threads} * groups);
  return std::max<int64_t>(1, std::min(most, ceil_div(rows, Team::kTeams * kRowsOfTeam)));
}

}  // namespace mimo::cuda
