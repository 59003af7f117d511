#include "kernels/elementwise.h"

#include "kernels/cpu/threads.h"

namespace mimo {

template <class T>
void run(const Cpu&, const Fill<T>& op) {
  const T value = T(op.value);
  for_each_span(op.rows, op.cols, op.y.ld == op.cols, op.rows * op.cols * int64_t{sizeof(T)},
                [&](int64_t row, int64_t begin, int64_t end) {
                  T* y = op.y[row];
                  std::fill(y + begin, y + end, value);
                });
}

template <class T>
void run(const Cpu&, const Add<T>& op) {
  using A = acc_t<T>;
  const bool dense = op.a.ld == op.cols && op.b.ld == op.cols && op.y.ld == op.cols;
  for_each_span(op.rows, op.cols, dense, 3 * op.rows * op.cols * int64_t{sizeof(T)},
                [&](int64_t row, int64_t begin, int64_t end) {
                  const T *a = op.a[row], *b = op.b[row];
                  T* y = op.y[row];
#pragma omp simd
                  for (int64_t c = begin; c < end; ++c) y[c] = A(a[c]) + A(b[c]);
                });
}

template <class T>
void run(const Cpu&, const Copy<T>& op) {
  const bool dense = op.x.ld == op.cols && op.y.ld == op.cols;
  for_each_span(op.rows, op.cols, dense, 2 * op.rows * op.cols * int64_t{sizeof(T)},
                [&](int64_t row, int64_t begin, int64_t end) {
                  const T* x = op.x[row];
                  std::copy(x + begin, x + end, op.y[row] + begin);
                });
}

template <class T>
void run(const Cpu&, const Scale<T>& op) {
  using A = acc_t<T>;
  const A factor = static_cast<A>(*op.factor);
  for_each_span(1, op.n, true, 2 * op.n * int64_t{sizeof(T)}, [&](int64_t, int64_t begin, int64_t end) {
    T* x = op.x;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) x[i] = A(x[i]) * factor;
  });
}

template <class T>
void run(const Cpu&, const ToAcc<T>& op) {
  using A = acc_t<T>;
  for_each_span(1, op.n, true, op.n * int64_t{sizeof(T) + sizeof(A)},
                [&](int64_t, int64_t begin, int64_t end) {
                  const T* x = op.x;
                  A* y = op.y;
                  if (op.accumulate) {
#pragma omp simd
                    for (int64_t i = begin; i < end; ++i) y[i] += A(x[i]);
                  } else {
#pragma omp simd
                    for (int64_t i = begin; i < end; ++i) y[i] = A(x[i]);
                  }
                });
}

template <class T>
void run(const Cpu&, const FromAcc<T>& op) {
  for_each_span(1, op.n, true, op.n * int64_t{sizeof(T) + sizeof(acc_t<T>)},
                [&](int64_t, int64_t begin, int64_t end) {
                  const acc_t<T>* x = op.x;
                  T* y = op.y;
#pragma omp simd
                  for (int64_t i = begin; i < end; ++i) y[i] = x[i];
                });
}

template <class T>
int64_t workspace(const Cpu&, const AddColumnSums<T>& op) {
  return Blocks(op.rows).count * op.cols * int64_t{sizeof(acc_t<T>)};
}

template <class T>
void run(const Cpu& cpu, const AddColumnSums<T>& op) {
  using A = acc_t<T>;
  const Blocks blocks(op.rows);
  A* partial = static_cast<A*>(cpu.ws.data);
  parallel_for(blocks.count, op.rows * op.cols * int64_t{sizeof(T)}, [&](int64_t b) {
    A* sum = partial + b * op.cols;
    std::fill_n(sum, op.cols, A(0));
    for (int64_t i = blocks.begin(b); i < blocks.end(b); ++i) {
      const T* x = op.x[i];
#pragma omp simd
      for (int c = 0; c < op.cols; ++c) sum[c] += A(x[c]);
    }
  });
  add_partial_sums(blocks.count, op.cols, partial, op.cols, op.y);
}

MIMO_CPU_KERNEL(Fill);
MIMO_CPU_KERNEL(Add);
MIMO_CPU_KERNEL(Copy);
MIMO_CPU_KERNEL(Scale);
MIMO_CPU_KERNEL(ToAcc);
MIMO_CPU_KERNEL(FromAcc);
MIMO_CPU_KERNEL(AddColumnSums);
MIMO_CPU_WORKSPACE(AddColumnSums);

}  // namespace mimo
