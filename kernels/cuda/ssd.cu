// Forward of SSD: the states between chunks (ssd_states.cu), then the outputs of all chunks at once.
//
// A block takes a chunk and heads of one group. C B^T stays in registers while it goes through the heads; of
// each it multiplies the mask in there and uses the result as the left operand of the second product, as
// attention does with its probabilities: nothing of size Q x Q leaves the warp. C and H come in slices of N,
// by copies that run one slice ahead, so that any state fits.
//
// Floor a token and head, P 64, N 128, bf16: x is read twice and y written once (384 bytes), a state written
// and read for each chunk (512 bytes): 0.9 KB, against 4 N P + Q P = 37 kFLOP; by an H200's peaks memory
// limits it, five to one. Chunks of 128 rows would halve the states' part and need twice the registers. Not
// measured.
#include "kernels/cuda/ssd.cuh"

namespace mimo {
namespace cuda {

template <class T, int P>
struct SsdOutputShared {
  static constexpr int Q = SsdTile<T>::rows, S = SsdTile<T>::slice, right_rows = P > Q ? P : Q;
  struct Slice {
    T c_QN[Q * ssd_ld<T, S>], right[right_rows * ssd_ld<T, S>];  // B [Q, N], then H [P, N]
  } slice[2];
  struct Head {
    T x_QP[Q * ssd_ld<T, P>];
    SsdSteps<T> steps;
  } head[2];
  T y_QP[Q * ssd_ld<T, P>];
  SsdScratch<T> scratch;
};

template <class T, int P>
__global__ void __launch_bounds__(SsdTile<T>::threads)
    ssd_output(SsdProblem<T> p, SsdMatrix<T> y, int parts) {
  using Shared = SsdOutputShared<T, P>;
  constexpr int Q = Shared::Q, S = Shared::S;
  MIMO_SHARED(Shared, s);
  const SsdLane l;
  const int c = static_cast<int>(blockIdx.x), group = static_cast<int>(blockIdx.y) / parts;
  const int per_group = p.heads / p.groups, part = static_cast<int>(ceil_div(per_group, parts));
  const int skip = static_cast<int>(blockIdx.y) % parts * part, heads = min(part, per_group - skip);
  const int first_head = group * per_group + skip;
  const SsdChunk chunk = p.chunk[c];
  if (chunk.rows == 0) return;
  const bool has_state = p.has_state(chunk);
  const int stages = has_state ? p.slices : 1;  // of a head

  // Stages: the slices of C and B, then for every head its x and the slices of C and H.
  const auto load = [&](int i) {
    const int h = i < p.slices ? -1 : (i - p.slices) / stages, slice = h < 0 ? i : (i - p.slices) % stages;
    const int n0 = slice * S, width = min(S, p.state_cols - n0);
    auto& to = s.slice[i % 2];
    if (h < 0 || has_state)
      ssd_load<S>(to.c_QN, Q, width, p.c.data + chunk.row * p.c.ld + group * p.state + n0, p.c.ld, chunk.rows,
                  p.state - n0, p.c.vectors);
    if (h < 0)
      ssd_load<S>(to.right, Q, width, p.b.data + chunk.row * p.b.ld + group * p.state + n0, p.b.ld,
                  chunk.rows, p.state - n0, p.b.vectors);
    else if (has_state)
      ssd_load<S>(to.right, P, width, p.state_CHPN + p.at(c, first_head + h) * P * p.state_cols + n0,
                  p.state_cols, P, width, true);
    if (h >= 0 && slice == 0) {
      auto& head = s.head[h % 2];
      ssd_load<P>(head.x_QP, Q, P, p.x.data + chunk.row * p.x.ld + (first_head + h) * p.head_dim, p.x.ld,
                  chunk.rows, p.head_dim, p.x.vectors);
      ssd_load_record(&head.steps, p.steps_CH + p.at(c, first_head + h));
    }
    cp_async_commit();
  };
  // Waits for stage i and starts the next.
  const int total = p.slices + heads * stages;
  const auto arrive = [&](int i) {
    cp_async_wait<0>();
    __syncthreads();
    if (i + 1 < total) load(i + 1);
  };

  load(0);
  int i = 0;
  float cb[Q / 8][4];
  ssd_clear(cb);
  for (; i < p.slices; ++i) {
    arrive(i);
    const int steps = min(S, p.state_cols - i * S) / 16;
    ssd_product<S / 16, false>(l, cb,
                               SsdRows<T>{s.slice[i % 2].c_QN + 16 * l.warp * ssd_ld<T, S>, ssd_ld<T, S>},
                               s.slice[i % 2].right, ssd_ld<T, S>, {0, l.warp + 1, 0, steps});
  }
  for (int h = 0; h < heads; ++h) {
    const auto& head = s.head[h % 2];
    float acc[P / 8][4];
    ssd_clear(acc);
    for (int slice = 0; slice < stages; ++slice, ++i) {
      arrive(i);
      if (!has_state) continue;
      const int steps = min(S, p.state_cols - slice * S) / 16;
      ssd_product<S / 16, false>(l, acc,
                                 SsdRows<T>{s.slice[i % 2].c_QN + 16 * l.warp * ssd_ld<T, S>, ssd_ld<T, S>},
                                 s.slice[i % 2].right, ssd_ld<T, S>, {0, P, 0, steps});
    }
    const float d = p.d[first_head + h];
#pragma unroll
    for (int n = 0; n < P / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        acc[n][e] = head.steps.from_start[l.row(e)] * acc[n][e] +
                    d * static_cast<float>(head.x_QP[l.row(e) * ssd_ld<T, P> + l.column(n, e)]);
    float w[Q / 8][4];
#pragma unroll
    for (int n = 0; n < Q / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = l.row(e), j = l.column(n, e);
        w[n][e] = j <= row ? cb[n][e] * head.steps.decay(row, j) * head.steps.dt[j] : 0;
      }
    const SsdHeld<T, Q / 8> held(l, w, s.scratch.strip(l.warp));
    ssd_product<Q / 16, true>(l, acc, held, head.x_QP, ssd_ld<T, P>, {0, P, 0, l.warp + 1});
    ssd_store<P>(l, acc, s.y_QP, y, chunk.row, int64_t{first_head + h} * p.head_dim, chunk.rows, p.head_dim);
  }
}

}  // namespace cuda

template <class T>
int64_t workspace(const Cuda&, const Ssd<T>& op) {
  Scratch m;
  cuda::SsdProblem<T>(op.in).take(m);
  return m.bytes();
}

template <class T>
void run(const Cuda& context, const Ssd<T>& op) {
  using namespace cuda;
  Scratch m(context.ws);
  SsdProblem<T> p(op.in);
  p.take(m);
  ssd_states<T>(context, p, {p.x, p.b, p.state_in, p.state_CHPN, op.state_out}, nullptr);
  const int parts = p.parts(context.sms);
  ssd_dispatch(p, [&]<int P>() {
    cuda::launch<ssd_output<T, P>, SsdOutputShared<T, P>>(
        context, dim3(static_cast<unsigned>(p.chunks), static_cast<unsigned>(p.groups * parts)),
        SsdTile<T>::threads, p, ssd_matrix(op.y, op.in.head_dim), parts);
  });
}

MIMO_CUDA_KERNEL_WITH_WORKSPACE(Ssd);

}  // namespace mimo
