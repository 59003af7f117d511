// Mamba-2's gated norm. A team (row.cuh) has a group of a row; else the design is rms_norm.cu's.
//
// Limit: bytes; forward reads y and z and writes out, backward reads y, z and dout and writes dy and dz: at
// 8192 x 8192 in bf16 403 and 671 MB, at 4.8 TB/s 84 and 140 us. What
// is kept are the operands as they lie in memory: u = y silu(z) and its sigmoid are computed again in the
// second pass, which takes fewer registers than to keep them. Not measured.
#include "kernels/gated_norm.h"

#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/math.cuh"

namespace mimo {
namespace cuda {

template <class T, class Team>
__global__ void __launch_bounds__(Team::kMostThreads) gated_norm_forward(GatedNorm<T> op) {
  MIMO_SHARED(TeamShared, s);
  constexpr int N = Team::template kVectorOf<T>;
  Team team(s);
  const int64_t row = int64_t{blockIdx.x} * team.kTeams + team.index();
  const int group = blockIdx.y, group_cols = op.in.cols / op.in.groups, at = group * group_cols;
  const int cols = row < op.in.rows ? group_cols : 0;
  const Row<T, Team> y(team, op.in.y[row] + at, cols), z(team, op.in.z[row] + at, cols);
  const Row<T, Team> w(team, op.in.w + at, cols);
  // y factor silu(z)
  const auto gated = [&](float(&us)[N], int i, int c, float factor) {
    float zs[N];
    y.get(us, i, c);
    z.get(zs, i, c);
#pragma unroll
    for (int e = 0; e < N; ++e) us[e] = us[e] * factor * (zs[e] * sigmoid_for<T>(zs[e]));
  };
  const float r = inverse_rms(team, group_cols, op.eps, [&](float scale) {
    float square = 0;
    team.template for_columns<N>(cols, [&](int i, int c) {
      float us[N];
      gated(us, i, c, scale);
#pragma unroll
      for (int e = 0; e < N; ++e) square += us[e] * us[e];
    });
    return square;
  });
  T* out = op.out[row] + at;
  team.template for_columns<N>(cols, [&](int i, int c) {
    float us[N], ws[N];
    gated(us, i, c, r);
    w.get(ws, i, c);
#pragma unroll
    for (int e = 0; e < N; ++e) us[e] *= ws[e];
    store<N>(out + c, us);
  });
  if (cols > 0 && team.rank() == 0 && op.r) op.r[row * op.in.groups + group] = r;
}

constexpr int kGatedNormSmThreads = 512;  // that backward's registers leave room for

// Blocks (slice, group). partial: [slices, cols], or null.
template <class T, class Team>
__global__ void __launch_bounds__(Team::kMostThreads)
    gated_norm_backward(GatedNormBackward<T> op, float* partial) {
  MIMO_SHARED(ColumnSumsOfTeams<Team>, s);
  constexpr int N = Team::template kVectorOf<T>;
  Team team(s.team);
  const int group = blockIdx.y, group_cols = op.in.cols / op.in.groups, at = group * group_cols;
  ColumnSums<T, Team> dw(team, group_cols,
                         partial ? partial + int64_t{blockIdx.x} * op.in.cols + at : nullptr);
  for (int64_t first = int64_t{blockIdx.x} * team.kTeams; first < op.in.rows;
       first += int64_t{gridDim.x} * team.kTeams) {
    const int64_t row = first + team.index();
    const int cols = row < op.in.rows ? group_cols : 0;
    const Row<T, Team> y(team, op.in.y[row] + at, cols), z(team, op.in.z[row] + at, cols);
    const Row<T, Team> dout(team, op.dout[row] + at, cols);
    const float r = cols > 0 ? op.r[row * op.in.groups + group] : 0;
    float sum = 0;
    team.template for_columns<N>(cols, [&](int i, int c) {
      float ys[N], zs[N], ds[N], ws[N];
      y.get(ys, i, c);
      z.get(zs, i, c);
      dout.get(ds, i, c);
      load<N>(ws, op.in.w + at + c);
#pragma unroll
      for (int e = 0; e < N; ++e) sum += ys[e] * r * (zs[e] * sigmoid_for<T>(zs[e])) * (ws[e] * ds[e]);
    });
    const float mean = team.sum(sum) / static_cast<float>(group_cols);
    T *dy = op.dy[row] + at, *dz = op.dz[row] + at;
    team.template for_columns<N>(cols, [&](int i, int c) {
      float ys[N], zs[N], ds[N], ws[N];
      y.get(ys, i, c);
      z.get(zs, i, c);
      dout.get(ds, i, c);
      load<N>(ws, op.in.w + at + c);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float sigmoid = sigmoid_for<T>(zs[e]), silu = zs[e] * sigmoid, xhat = ys[e] * r * silu;
        const float du = r * (ws[e] * ds[e] - xhat * mean);
        ds[e] *= xhat;
        zs[e] = du * ys[e] * (sigmoid * (1 + zs[e] * (1 - sigmoid)));
        ys[e] = du * silu;
      }
      store<N>(dy + c, ys);
      store<N>(dz + c, zs);
      dw.add(i, c, ds);
    });
  }
  dw.write(team, group_cols, s.columns);
}

template <class T>
bool gated_norm_aligned(const GatedNorm<T>& op) {
  return aligned(op.in.y) && aligned(op.in.z) && aligned(op.in.w, 0) && aligned(op.out);
}
template <class T>
bool gated_norm_aligned(const GatedNormBackward<T>& op) {
  return aligned(op.in.y) && aligned(op.in.z) && aligned(op.in.w, 0) && aligned(op.dout) && aligned(op.dy) &&
         aligned(op.dz);
}

// Columns of a group.
template <class T>
int group_cols_of(const GatedNormInputs<T>& in) {
  if (in.groups < 1 || in.cols % in.groups != 0)
    throw std::invalid_argument("gated_norm: groups: expected a divisor of " + std::to_string(in.cols) +
                                ", found " + std::to_string(in.groups));
  return in.cols / in.groups;
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const GatedNorm<T>& op) {
  using namespace cuda;
  const int cols = group_cols_of(op.in);
  if (op.in.rows == 0 || cols == 0) return;
  with_team<T>(cols, gated_norm_aligned(op), [&]<class Team>(int threads) {
    cuda::launch<gated_norm_forward<T, Team>, TeamShared>(context, row_grid<Team>(op.in.rows, op.in.groups),
                                                          threads, op);
  });
}

template <class T>
int64_t workspace(const Cuda& context, const GatedNormBackward<T>& op) {
  using namespace cuda;
  int64_t bytes = 0;
  with_team<T>(group_cols_of(op.in), gated_norm_aligned(op), [&]<class Team>(int threads) {
    bytes = row_slices<Team>(context, op.in.rows, op.in.groups, threads, kGatedNormSmThreads) * op.in.cols *
            int64_t{sizeof(float)};
  });
  return op.dw ? bytes : 0;
}

template <class T>
void run(const Cuda& context, const GatedNormBackward<T>& op) {
  using namespace cuda;
  const int cols = group_cols_of(op.in);
  if (op.in.rows == 0 || cols == 0) return;
  float* partial = op.dw ? static_cast<float*>(context.ws.data) : nullptr;
  with_team<T>(cols, gated_norm_aligned(op), [&]<class Team>(int threads) {
    const int64_t slices = row_slices<Team>(context, op.in.rows, op.in.groups, threads, kGatedNormSmThreads);
    cuda::launch<gated_norm_backward<T, Team>, ColumnSumsOfTeams<Team>>(
        context, dim3(static_cast<unsigned>(slices), static_cast<unsigned>(op.in.groups)), threads, op,
        partial);
    if (partial) add_column_sums(context, slices, op.in.cols, partial, op.in.cols, op.dw);
  });
}

MIMO_CUDA_KERNEL(GatedNorm);
MIMO_CUDA_KERNEL_WITH_WORKSPACE(GatedNormBackward);

}  // namespace mimo
