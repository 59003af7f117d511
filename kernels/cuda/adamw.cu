// AdamW. One launch for all tensors: blocks take chunks of them in turn (chunks.cuh).
//
// Limit: bytes; an element reads the gradient, two moments and the master weight and writes the last three:
// 28 bytes, 30 where the parameter is a bf16 beside. A thread has 64 bytes under way, which at 1024 threads
// an SM is enough; the arithmetic, with an exact root and division, is a sixth of what an SM can do in that
// time. Not measured.
#include "kernels/adamw.h"

#include "kernels/cuda/chunks.cuh"
#include "kernels/cuda/vector.cuh"

namespace mimo {
namespace cuda {

constexpr int kAdamThreads = 256, kAdamVector = 4, kAdamChunk = 4 * kAdamThreads * kAdamVector;
struct AdamShared {
  double correction[2];  // 1 / (1 - b^t)
};

template <class T>
struct CountOfAdamTensor {
  const AdamTensor<T>* tensor;
  __device__ int64_t operator()(int i) const { return tensor[i].n; }
};

// What one step multiplies with: made in double, rounded once.
struct AdamFactors {
  float scale, b1, b2, one_minus_b1, one_minus_b2, m_hat, v_hat, eps, lr, decay;
};

// Products and sums are fused by hand: the bits do not depend on where a tensor is cut.
__device__ inline void adam_update(const AdamFactors& f, float grad, float& m, float& v, float& p) {
  const float g = grad * f.scale;
  m = fmaf(f.b1, m, f.one_minus_b1 * g);
  v = fmaf(f.b2, v, f.one_minus_b2 * g * g);
  p = fmaf(-f.lr, fmaf(f.decay, p, m * f.m_hat / (sqrtf(v * f.v_hat) + f.eps)), p);
}

template <class T>
__device__ inline void adam_update(const AdamFactors& f, const AdamTensor<T>& a, int64_t i) {
  float m = a.m[i], v = a.v[i], p = a.master[i];
  adam_update(f, a.grad[i], m, v, p);
  a.m[i] = m, a.v[i] = v, a.master[i] = p;
  if constexpr (sizeof(T) == 2) a.param[i] = to_type<T>(p);
}

// Four at once, from a multiple of 4 on.
template <class T>
__device__ inline void adam_update_vector(const AdamFactors& f, const AdamTensor<T>& a, int64_t i) {
  constexpr int N = kAdamVector;
  float grad[N], m[N], v[N], p[N];
  load<N>(grad, a.grad + i);
  load<N>(m, a.m + i);
  load<N>(v, a.v + i);
  load<N>(p, a.master + i);
#pragma unroll
  for (int e = 0; e < N; ++e) adam_update(f, grad[e], m[e], v[e], p[e]);
  store<N>(a.m + i, m);
  store<N>(a.v + i, v);
  store<N>(a.master + i, p);
  if constexpr (sizeof(T) == 2)
    *reinterpret_cast<uint2*>(a.param + i) = make_uint2(pack_bf16(p[0], p[1]), pack_bf16(p[2], p[3]));
}

template <class T>
__global__ void __launch_bounds__(kAdamThreads) adamw_chunks(AdamW<T> op) {
  MIMO_SHARED(AdamShared, s);
  const AdamState& state = *op.state;
  if (threadIdx.x < 2)
    s.correction[threadIdx.x] =
        1 / (1 - pow(threadIdx.x == 0 ? state.beta1 : state.beta2, static_cast<double>(state.t)));
  __syncthreads();
  AdamFactors f;
  f.scale = static_cast<float>(state.scale);
  f.b1 = static_cast<float>(state.beta1);
  f.b2 = static_cast<float>(state.beta2);
  f.one_minus_b1 = static_cast<float>(1 - state.beta1);
  f.one_minus_b2 = static_cast<float>(1 - state.beta2);
  f.m_hat = static_cast<float>(s.correction[0]);
  f.v_hat = static_cast<float>(s.correction[1]);
  f.eps = static_cast<float>(state.eps);
  Chunks<kAdamChunk, CountOfAdamTensor<T>> chunks(op.tensors, {op.tensor});
  for (int64_t number = blockIdx.x; chunks.find(number); number += gridDim.x) {
    const AdamTensor<T> a = op.tensor[chunks.tensor()];
    f.lr = static_cast<float>(state.lr * a.lr);
    f.decay = static_cast<float>(state.weight_decay * a.decay);
    const auto address = reinterpret_cast<uintptr_t>(a.master) | reinterpret_cast<uintptr_t>(a.grad) |
                         reinterpret_cast<uintptr_t>(a.m) | reinterpret_cast<uintptr_t>(a.v) |
                         reinterpret_cast<uintptr_t>(a.param) * (4 / sizeof(T));
    const int64_t end = chunks.begin() + chunks.count();
    const int64_t vectors_end = address % 16 == 0 ? end / kAdamVector * kAdamVector : chunks.begin();
    const int thread = static_cast<int>(threadIdx.x);
    for (int64_t i = chunks.begin() + thread * kAdamVector; i < vectors_end; i += kAdamThreads * kAdamVector)
      adam_update_vector(f, a, i);
    for (int64_t i = vectors_end + thread; i < end; i += kAdamThreads) adam_update(f, a, i);
  }
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const AdamW<T>& op) {
  using namespace cuda;
  const int64_t blocks =
      chunk_blocks(op.tensors, op.total, kAdamChunk, int64_t{4} * std::max(1, context.sms));
  cuda::launch<adamw_chunks<T>, AdamShared>(context, dim3(static_cast<unsigned>(blocks)), kAdamThreads, op);
}

MIMO_CUDA_KERNEL(AdamW);

}  // namespace mimo
