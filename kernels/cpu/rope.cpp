#include "kernels/rope.h"

#include <cmath>

#include "kernels/cpu/threads.h"
#include "kernels/portable/math.h"

namespace mimo {

template <class T>
void run(const Cpu&, const Rope<T>& op) {
  using A = acc_t<T>;
  constexpr int kPairs = 64;  // frequencies handled at a time, on the stack
  const int half = op.rotary / 2;
  const double sign = op.inverse ? -1 : 1;
  const int64_t bytes = 2 * op.tokens * op.heads * op.head_dim * int64_t{sizeof(T)};

  if (op.y.data != op.x.data && op.rotary < op.head_dim) {
    parallel_for(op.tokens, bytes, [&](int64_t t) {
      for (int64_t h = 0; h < op.heads; ++h)
        std::copy_n(op.x[t] + h * op.head_dim + op.rotary, op.head_dim - op.rotary,
                    op.y[t] + h * op.head_dim + op.rotary);
    });
  }

  for (int begin = 0; begin < half; begin += kPairs) {
    const int n = std::min(kPairs, half - begin);
    double frequency[kPairs];
    for (int j = 0; j < n; ++j) frequency[j] = std::pow(op.theta, -2.0 * (begin + j) / op.rotary);
    parallel_for(op.tokens, bytes, [&](int64_t t) {
      A cosine[kPairs], sine[kPairs];
#pragma omp simd
      for (int j = 0; j < n; ++j) {
        const SinCos angle = sin_cos(op.positions[t] * frequency[j]);
        cosine[j] = static_cast<A>(angle.cos);
        sine[j] = static_cast<A>(sign * angle.sin);
      }
      for (int64_t h = 0; h < op.heads; ++h) {
        const T* x = op.x[t] + h * op.head_dim + begin;
        T* y = op.y[t] + h * op.head_dim + begin;
#pragma omp simd
        for (int j = 0; j < n; ++j) {
          const A x1 = A(x[j]), x2 = A(x[j + half]);
          y[j] = x1 * cosine[j] - x2 * sine[j];
          y[j + half] = x2 * cosine[j] + x1 * sine[j];
        }
      }
    });
  }
}

MIMO_CPU_KERNEL(Rope);

}  // namespace mimo
