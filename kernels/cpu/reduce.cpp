#include "kernels/reduce.h"

#include <cmath>
#include <limits>

#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

constexpr int64_t kBlock = 1 << 15;  // elements of one partial sum

struct Partial {
  double sum, non_finite;
};

template <class T>
Partial sum_squares(const T* x, int64_t n) {
  using A = acc_t<T>;
  double sum = 0;
  A non_finite = 0;  // a whole number below 2^24
#pragma omp simd reduction(+ : sum, non_finite)
  for (int64_t i = 0; i < n; ++i) {
    const A v = A(x[i]);
    const bool finite = std::fabs(v) <= std::numeric_limits<A>::max();
    const double d = finite ? v : A(0);
    sum += d * d;
    non_finite += finite ? A(0) : A(1);
  }
  return {sum, double(non_finite)};
}

template <class T>
int64_t blocks_of(const SumSquares<T>& op) {
  int64_t blocks = 0;
  for (int i = 0; i < op.tensors; ++i) blocks += (op.n[i] + kBlock - 1) / kBlock;
  return blocks;
}

}  // namespace

template <class T>
int64_t workspace(const Cpu&, const SumSquares<T>& op) {
  return blocks_of(op) * int64_t{sizeof(Partial)};
}

template <class T>
void run(const Cpu& cpu, const SumSquares<T>& op) {
  const int64_t blocks = blocks_of(op);
  Partial* partial = static_cast<Partial*>(cpu.ws.data);
  for_each_span_of(
      op.tensors, [&](int i) { return op.n[i]; }, kBlock, op.total * int64_t{sizeof(T)},
      [&](int i, int64_t begin, int64_t end, int64_t block) {
        partial[block] = sum_squares(op.x[i] + begin, end - begin);
      });
  op.result[0] = op.result[1] = 0;
  for (int64_t b = 0; b < blocks; ++b) op.result[0] += partial[b].sum, op.result[1] += partial[b].non_finite;
}

MIMO_CPU_KERNEL(SumSquares);
MIMO_CPU_WORKSPACE(SumSquares);

}  // namespace mimo
