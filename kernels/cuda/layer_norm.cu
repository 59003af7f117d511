// Layer norm.
//
// Limit: bytes, as of rms_norm.cu, whose design this is. The variance is summed in a second pass over the
// registers, of centred values, which does not cancel, and so is what the mean lacks. Backward sums two
// numbers a row at one barrier. Not measured.
#include "kernels/layer_norm.h"

#include "kernels/cuda/column_sums.cuh"

namespace mimo {
namespace cuda {

template <class T, class Team>
__global__ void __launch_bounds__(Team::kMostThreads) layer_norm_forward(LayerNorm<T> op) {
  MIMO_SHARED(TeamShared, s);
  constexpr int N = Team::template kVectorOf<T>;
  Team team(s);
  const int64_t row = int64_t{blockIdx.x} * team.kTeams + team.index();
  const int cols = row < op.in.rows ? op.in.cols : 0;
  const Row<T, Team> x(team, op.in.x[row], cols);
  const Row<T, Team> w(team, op.in.w, cols), b(team, op.b, cols);
  // The mean's terms are divided first, so that no sum leaves the range of float.
  const float each = 1 / static_cast<float>(op.in.cols);
  float sum = 0;
  team.template for_columns<N>(cols, [&](int i, int c) {
    float xs[N];
    x.get(xs, i, c);
#pragma unroll
    for (int e = 0; e < N; ++e) sum += xs[e] * each;
  });
  const float mean = team.sum(sum);
  // Centred values are scaled (halved: x - mean may leave the range, and so is exact). Their own sum is what
  // the mean lacks; where it is far above the deviation that counts.
  float rstd = 0, rest = 0;
  bool done = false;
#pragma unroll 1
  for (int pass = 0; pass < 2; ++pass) {
    const float scale = 0.5f * row_scale(pass), at = mean * scale;
    float sums[2] = {0, 0};
    team.template for_columns<N>(cols, [&](int i, int c) {
      float xs[N];
      x.get(xs, i, c);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float d = xs[e] * scale - at;
        sums[0] += d;
        sums[1] += d * d;
      }
    });
    team.sum(sums);
    if (!done) {
      const float off = sums[0] * each;
      rstd = 2 * scale / sqrtf(4 * (sums[1] * each - off * off) + op.eps * (2 * scale) * (2 * scale));
      rest = off / scale;
    }
    done = sums[1] < INFINITY;
    if (!team.any(!done)) break;
  }
  const float half_mean = 0.5f * mean, twice_rstd = 2 * rstd, shift = rest * rstd;
  T* y = op.y[row];
  team.template for_columns<N>(cols, [&](int i, int c) {
    float xs[N], ws[N], bs[N];
    x.get(xs, i, c);
    w.get(ws, i, c);
    b.get(bs, i, c);
#pragma unroll
    for (int e = 0; e < N; ++e) xs[e] = ws[e] * ((xs[e] * 0.5f - half_mean) * twice_rstd - shift) + bs[e];
    store<N>(y + c, xs);
  });
  if (cols > 0 && team.rank() == 0 && op.mean) op.mean[row] = mean + rest, op.rstd[row] = rstd;
}

// Threads on an SM: bf16 has half the bytes under way in a thread, so more threads with fewer registers (80).
template <class T>
constexpr int kLayerNormSmThreads = sizeof(T) == 2 ? 768 : 512;

// partial: [gridDim.x, 2 cols], of dw, then of db, each where it is wanted.
template <class T, class Team>
__global__ void __launch_bounds__(kLayerNormSmThreads<T>)
    layer_norm_backward(LayerNormBackward<T> op, float* partial) {
  MIMO_SHARED(ColumnSumsOfTeams<Team>, s);
  constexpr int N = Team::template kVectorOf<T>;
  Team team(s.team);
  const int64_t at = int64_t{blockIdx.x} * 2 * op.in.cols;
  ColumnSums<T, Team> dw(team, op.in.cols, op.dw ? partial + at : nullptr),
      db(team, op.in.cols, op.db ? partial + at + op.in.cols : nullptr);
  for (int64_t first = int64_t{blockIdx.x} * team.kTeams; first < op.in.rows;
       first += int64_t{gridDim.x} * team.kTeams) {
    const int64_t row = first + team.index();
    const int cols = row < op.in.rows ? op.in.cols : 0;
    const Row<T, Team> x(team, op.in.x[row], cols), dy(team, op.dy[row], cols);
    const float half_mean = cols > 0 ? 0.5f * op.mean[row] : 0, rstd = cols > 0 ? op.rstd[row] : 0;
    const float twice_rstd = 2 * rstd;
    float sums[2] = {0, 0};  // of g and g xhat, g = w dy
    team.template for_columns<N>(cols, [&](int i, int c) {
      float xs[N], ws[N], ds[N];
      x.get(xs, i, c);
      load<N>(ws, op.in.w + c);
      dy.get(ds, i, c);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float g = ws[e] * ds[e];
        sums[0] += g;
        sums[1] += g * ((xs[e] * 0.5f - half_mean) * twice_rstd);
      }
    });
    team.sum(sums);
    const float mean_g = sums[0] / static_cast<float>(op.in.cols);
    const float mean_gx = sums[1] / static_cast<float>(op.in.cols);
    T* dx = op.dx[row];
    team.template for_columns<N>(cols, [&](int i, int c) {
      float xs[N], ws[N], ds[N];
      x.get(xs, i, c);
      load<N>(ws, op.in.w + c);
      dy.get(ds, i, c);
      db.add(i, c, ds);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float xhat = (xs[e] * 0.5f - half_mean) * twice_rstd;
        xs[e] = rstd * (ws[e] * ds[e] - mean_g - xhat * mean_gx);
        ds[e] *= xhat;
      }
      store<N>(dx + c, xs);
      dw.add(i, c, ds);
    });
  }
  dw.write(team, op.in.cols, s.columns);
  db.write(team, op.in.cols, s.columns);
}

template <class T>
bool layer_norm_aligned(const LayerNorm<T>& op) {
  return aligned(op.in.x) && aligned(op.y) && aligned(op.in.w, 0) && aligned(op.b, 0);
}
template <class T>
bool layer_norm_aligned(const LayerNormBackward<T>& op) {
  return aligned(op.in.x) && aligned(op.dy) && aligned(op.dx) && aligned(op.in.w, 0);
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const LayerNorm<T>& op) {
  using namespace cuda;
  if (op.in.rows == 0 || op.in.cols == 0) return;
  with_team<T>(op.in.cols, layer_norm_aligned(op), [&]<class Team>(int threads) {
    cuda::launch<layer_norm_forward<T, Team>, TeamShared>(context, row_grid<Team>(op.in.rows), threads, op);
  });
}

template <class T>
int64_t workspace(const Cuda& context, const LayerNormBackward<T>& op) {
  using namespace cuda;
  int64_t bytes = 0;
  with_team<T>(op.in.cols, layer_norm_aligned(op), [&]<class Team>(int threads) {
    bytes = row_slices<Team>(context, op.in.rows, 1, threads, kLayerNormSmThreads<T>) * 2 * op.in.cols *
            int64_t{sizeof(float)};
  });
  return op.dw || op.db ? bytes : 0;
}

template <class T>
void run(const Cuda& context, const LayerNormBackward<T>& op) {
  using namespace cuda;
  if (op.in.rows == 0 || op.in.cols == 0) return;
  float* partial = static_cast<float*>(context.ws.data);
  with_team<T>(op.in.cols, layer_norm_aligned(op), [&]<class Team>(int threads) {
    const int64_t slices = row_slices<Team>(context, op.in.rows, 1, threads, kLayerNormSmThreads<T>);
    cuda::launch<layer_norm_backward<T, Team>, ColumnSumsOfTeams<Team>>(
        context, dim3(static_cast<unsigned>(slices)), threads, op, partial);
    if (op.dw) add_column_sums(context, slices, op.in.cols, partial, 2 * int64_t{op.in.cols}, op.dw);
    if (op.db)
      add_column_sums(context, slices, op.in.cols, partial + op.in.cols, 2 * int64_t{op.in.cols}, op.db);
  });
}

MIMO_CUDA_KERNEL(LayerNorm);
MIMO_CUDA_KERNEL_WITH_WORKSPACE(LayerNormBackward);

}  // namespace mimo
