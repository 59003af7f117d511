#include "kernels/cross_entropy.h"

#include <cmath>
#include <limits>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

constexpr int64_t kSpan = 1024;  // columns of one float sum; sums of spans are added in double

template <class T>
acc_t<T> max_of(const T* z, int64_t n) {
  using A = acc_t<T>;
  A m = -std::numeric_limits<A>::infinity();
#pragma omp simd reduction(max : m)
  for (int64_t i = 0; i < n; ++i) m = A(z[i]) > m ? A(z[i]) : m;
  return m;
}

template <class T>
acc_t<T> sum_exp(const T* z, int64_t n, acc_t<T> max) {
  using A = acc_t<T>;
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += fast_exp(A(z[i]) - max);
  return sum;
}

}  // namespace

template <class T>
void run(const Cpu&, const CrossEntropyMax<T>& op) {
  using A = acc_t<T>;
  parallel_for(op.rows, op.rows * op.cols * int64_t{sizeof(T)}, [&](int64_t r) {
    const T* z = op.logits[r];
    A max = -std::numeric_limits<A>::infinity();
    int64_t best = 0;  // span of the first maximum
    for (int64_t begin = 0; begin < op.cols; begin += kSpan) {
      const A m = max_of(z + begin, std::min(kSpan, op.cols - begin));
      if (m > max) max = m, best = begin;
    }
    op.max[r] = max;
    if (!op.arg) return;
    const T* end = z + std::min(op.cols, best + kSpan);
    const T* at = std::find_if(z + best, end, [&](T v) { return A(v) == max; });
    op.arg[r] = static_cast<int32_t>(op.first + (at == end ? 0 : at - z));
  });
}

template <class T>
void run(const Cpu&, const CrossEntropyArg<T>& op) {
  for (int64_t r = 0; r < op.rows; ++r)
    if (op.here[r] != op.max[r] && !std::isnan(op.max[r])) op.arg[r] = std::numeric_limits<int32_t>::max();
}

template <class T>
void run(const Cpu&, const CrossEntropySum<T>& op) {
  using A = acc_t<T>;
  parallel_for(op.rows, op.rows * op.cols * int64_t{sizeof(T)}, [&](int64_t r) {
    const T* z = op.logits[r];
    double sum = 0;
    for (int64_t begin = 0; begin < op.cols; begin += kSpan) {
      const int64_t end = std::min(op.cols, begin + kSpan);
      prefetch(z + end, std::min(kSpan, op.cols - end));
      sum += double(sum_exp(z + begin, end - begin, op.max[r]));
    }
    op.sum[r] = A(sum);
    const int64_t label = op.labels[r] - op.first;
    const bool here = op.labels[r] >= 0 && label >= 0 && label < op.cols;
    op.target[r] = here ? A(z[label]) - op.max[r] : A(0);
  });
}

template <class T>
void run(const Cpu&, const CrossEntropyLoss<T>& op) {
  double loss = 0;
  for (int64_t r = 0; r < op.rows; ++r)
    if (op.labels[r] >= 0) loss += std::log(double(op.sum[r])) - double(op.target[r]);
  *op.result += loss;
  *op.value = acc_t<T>(loss);
}

template <class T>
void run(const Cpu&, const CrossEntropyGrad<T>& op) {
  using A = acc_t<T>;
  parallel_for(op.rows, 2 * op.rows * op.cols * int64_t{sizeof(T)}, [&](int64_t r) {
    T* z = op.logits[r];
    const bool counted = op.labels[r] >= 0;
    if (op.loss) op.loss[r] = counted ? std::log(op.sum[r]) - op.target[r] : A(0);
    if (!counted) {
      std::fill_n(z, op.cols, T(0));
      return;
    }
    const A dloss = *op.dloss, max = op.max[r], scale = dloss / op.sum[r];
    const int64_t label = op.labels[r] - op.first;
    const bool here = label >= 0 && label < op.cols;
    const A at_label = here ? (fast_exp(A(z[label]) - max) / op.sum[r] - A(1)) * dloss : A(0);
    for (int64_t begin = 0; begin < op.cols; begin += kSpan) {
      const int64_t end = std::min(op.cols, begin + kSpan);
      prefetch(z + end, std::min(kSpan, op.cols - end));
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) z[i] = fast_exp(A(z[i]) - max) * scale;
    }
    if (here) z[label] = at_label;
  });
}

MIMO_CPU_KERNEL(CrossEntropyMax);
MIMO_CPU_KERNEL(CrossEntropyArg);
MIMO_CPU_KERNEL(CrossEntropySum);
MIMO_CPU_KERNEL(CrossEntropyLoss);
MIMO_CPU_KERNEL(CrossEntropyGrad);

}  // namespace mimo
