// Random numbers. A thread owns a counter, so four consecutive elements, in double throughout.
//
// It runs at initialisation only. Its limit is double arithmetic: about 110 operations for the two normals of
// a pair of words (67 TFLOP/s on an H100 would be 1.2 us per million elements), far above the bytes written,
// so stores stay scalar and any `first` is alike. Not measured.
#include "kernels/philox.h"

#include "kernels/cuda/ptx/convert.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/portable/random.h"

namespace mimo {
namespace cuda {

constexpr int kRandomThreads = 256;

template <class T>
__global__ void __launch_bounds__(kRandomThreads) random_fill(RandomFill<T> op) {
  const int64_t counter = op.first / 4 + int64_t{blockIdx.x} * kRandomThreads + threadIdx.x;
  const int64_t base = 4 * counter - op.first;  // of out, -3 or more
  if (base >= op.n) return;
  const Words w = words_at(op.seed, op.name, static_cast<uint64_t>(counter));
  const double u[4] = {unit_uniform(w.w0), unit_uniform(w.w1), unit_uniform(w.w2), unit_uniform(w.w3)};
  const double a = op.a, b = op.b;
  double value[4] = {a, a, a, a};
  switch (op.distribution) {
    case Distribution::normal: {
      const Normals even = box_muller(w.w0, w.w1, a, b), odd = box_muller(w.w2, w.w3, a, b);
      value[0] = even.z0, value[1] = even.z1, value[2] = odd.z0, value[3] = odd.z1;
      break;
    }
    case Distribution::uniform:
      for (int j = 0; j < 4; ++j) value[j] = fma(b - a, u[j], a);
      break;
    case Distribution::constant:
      break;
    case Distribution::log_uniform:
      for (int j = 0; j < 4; ++j) value[j] = portable_log(fma(b - a, u[j], a));
      break;
    case Distribution::log_index:
      for (int j = 0; j < 4; ++j)
        value[j] = portable_log(1 + double((4 * counter + j) % static_cast<int64_t>(a)));
      break;
    case Distribution::inverse_softplus: {
      const double ln_a = portable_log(a), ln_b = portable_log(b);
      for (int j = 0; j < 4; ++j) value[j] = inverse_softplus(exp(fma(ln_b - ln_a, u[j], ln_a)));
      break;
    }
  }
  for (int j = 0; j < 4; ++j)
    if (base + j >= 0 && base + j < op.n) op.out[base + j] = to_type<T>(static_cast<float>(value[j]));
}

}  // namespace cuda

template <class T>
void run(const Cuda& context, const RandomFill<T>& op) {
  using namespace cuda;
  const int64_t counters = op.n > 0 ? ceil_div(op.first + op.n, 4) - op.first / 4 : 0;
  cuda::launch<random_fill<T>>(context, dim3(static_cast<unsigned>(ceil_div(counters, kRandomThreads))),
                               kRandomThreads, op);
}

MIMO_CUDA_KERNEL(RandomFill);

}  // namespace mimo
