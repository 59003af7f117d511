// Root mean square norm.
//
// Limit: bytes; forward reads x and writes y, backward reads x and dy and writes dx, each once (row.cuh): at
// 8192 x 4096 in bf16 134 and 201 MB, at 4.8 TB/s 28 and 42 us.
// Weights come from the caches. Forward: a team a row. Backward: teams walk rows, keep their columns' sums of
// dw in registers, and leave one row of partial sums a block (column_sums.cuh); with 4096 columns these are
// 4 MB, which stay in the L2 cache. Considered: dw by a kernel of its own, which would read x and dy twice.
// Not measured.
#include "kernels/rms_norm.h"

#include "kernels/cuda/column_sums.cuh"

namespace mimo {
namespace cuda {

template <class T, class Team>
__global__ void __launch_bounds__(Team::kMostThreads) rms_norm_forward(RmsNorm<T> op) {
  MIMO_SHARED(TeamShared, s);
  constexpr int N = Team::template kVectorOf<T>;
  Team team(s);
  const int64_t row = int64_t{blockIdx.x} * team.kTeams + team.index();
  const int cols = row < op.in.rows ? op.in.cols : 0;
  const Row<T, Team> x(team, op.in.x[row], cols), w(team, op.in.w, cols);
  const float r = inverse_rms(team, op.in.cols, op.eps, [&](float scale) {
    float square = 0;
    team.template for_columns<N>(cols, [&](int i, int c) {
      float xs[N];
      x.get(xs, i, c);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float scaled = xs[e] * scale;
        square += scaled * scaled;
      }
    });
    return square;
  });
  T* y = op.y[row];
  team.template for_columns<N>(cols, [&](int i, int c) {
    float xs[N], ws[N];
    x.get(xs, i, c);
    w.get(ws, i, c);
#pragma unroll
    for (int e = 0; e < N; ++e) xs[e] = ws[e] * (xs[e] * r);
    store<N>(y + c, xs);
  });
  if (cols > 0 && team.rank() == 0 && op.r) op.r[row] = r;
}

constexpr int kRmsNormSmThreads = 768;  // that backward's registers leave room for

// partial: [gridDim.x, cols], or null.
template <class T, class Team>
__global__ void __launch_bounds__(Team::kMostThreads)
    rms_norm_backward(RmsNormBackward<T> op, float* partial) {
  MIMO_SHARED(ColumnSumsOfTeams<Team>, s);
  constexpr int N = Team::template kVectorOf<T>;
  Team team(s.team);
  ColumnSums<T, Team> dw(team, op.in.cols, partial ? partial + int64_t{blockIdx.x} * op.in.cols : nullptr);
  for (int64_t first = int64_t{blockIdx.x} * team.kTeams; first < op.in.rows;
       first += int64_t{gridDim.x} * team.kTeams) {
    const int64_t row = first + team.index();
    const int cols = row < op.in.rows ? op.in.cols : 0;
    const Row<T, Team> x(team, op.in.x[row], cols), dy(team, op.dy[row], cols);
    const float r = cols > 0 ? op.r[row] : 0;
    float sum = 0;
    team.template for_columns<N>(cols, [&](int i, int c) {
      float xs[N], ws[N], ds[N];
      x.get(xs, i, c);
      load<N>(ws, op.in.w + c);
      dy.get(ds, i, c);
#pragma unroll
      for (int e = 0; e < N; ++e) sum += xs[e] * r * (ws[e] * ds[e]);
    });
    const float mean = team.sum(sum) / static_cast<float>(op.in.cols);
    T* dx = op.dx[row];
    team.template for_columns<N>(cols, [&](int i, int c) {
      float xs[N], ws[N], ds[N];
      x.get(xs, i, c);
      load<N>(ws, op.in.w + c);
      dy.get(ds, i, c);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float xhat = xs[e] * r;
        xs[e] = r * (ws[e] * ds[e] - xhat * mean);
        ds[e] *= xhat;
      }
      store<N>(dx + c, xs);
      dw.add(i, c, ds);
    });
  }
  dw.write(team, op.in.cols, s.columns);
}

template <class T>
bool rms_norm_aligned(const RmsNorm<T>& op) {
  return aligned(op.in.x) && aligned(op.y) && aligned(op.in.w, 0);
}
template <class T>
bool rms_norm_aligned(const RmsNormBackward<T>& op) {
  return aligned(op.in.x) && aligned(op.dy) && aligned(op.dx) && aligned(op.in.w, 0);
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const RmsNorm<T>& op) {
  using namespace cuda;
  if (op.in.rows == 0 || op.in.cols == 0) return;
  with_team<T>(op.in.cols, rms_norm_aligned(op), [&]<class Team>(int threads) {
    cuda::launch<rms_norm_forward<T, Team>, TeamShared>(context, row_grid<Team>(op.in.rows), threads, op);
  });
}

template <class T>
int64_t workspace(const Cuda& context, const RmsNormBackward<T>& op) {
  using namespace cuda;
  int64_t bytes = 0;
  with_team<T>(op.in.cols, rms_norm_aligned(op), [&]<class Team>(int threads) {
    bytes = row_slices<Team>(context, op.in.rows, 1, threads, kRmsNormSmThreads) * op.in.cols *
            int64_t{sizeof(float)};
  });
  return op.dw ? bytes : 0;
}

template <class T>
void run(const Cuda& context, const RmsNormBackward<T>& op) {
  using namespace cuda;
  if (op.in.rows == 0 || op.in.cols == 0) return;
  float* partial = op.dw ? static_cast<float*>(context.ws.data) : nullptr;
  with_team<T>(op.in.cols, rms_norm_aligned(op), [&]<class Team>(int threads) {
    const int64_t slices = row_slices<Team>(context, op.in.rows, 1, threads, kRmsNormSmThreads);
    cuda::launch<rms_norm_backward<T, Team>, ColumnSumsOfTeams<Team>>(
        context, dim3(static_cast<unsigned>(slices)), threads, op, partial);
    if (partial) add_column_sums(context, slices, op.in.cols, partial, op.in.cols, op.dw);
  });
}

MIMO_CUDA_KERNEL(RmsNorm);
MIMO_CUDA_KERNEL_WITH_WORKSPACE(RmsNormBackward);

}  // namespace mimo
