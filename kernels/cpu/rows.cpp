#include "kernels/rows.h"

#include "kernels/cpu/threads.h"

namespace mimo {

template <class T>
void run(const Cpu&, const GatherRows<T>& op) {
  parallel_for(op.count, 2 * op.count * op.cols * int64_t{sizeof(T)},
               [&](int64_t i) { std::copy_n(op.x[op.rows[i]], op.cols, op.out[i]); });
}

template <class T>
void run(const Cpu&, const ScatterRows<T>& op) {
  parallel_for(op.count, 2 * op.count * op.cols * int64_t{sizeof(T)}, [&](int64_t i) {
    T* out = op.out[op.rows[i]];
    if (op.x)
      std::copy_n(op.x[i], op.cols, out);
    else
      std::fill_n(out, op.cols, T(0));
  });
}

template <class T>
void run(const Cpu&, const ScatterAddRows<T>& op) {
  using A = acc_t<T>;
  parallel_for(op.count, 3 * op.count * op.cols * int64_t{sizeof(T)}, [&](int64_t i) {
    const T* x = op.x[i];
    T* out = op.out[op.rows[i]];
#pragma omp simd
    for (int64_t c = 0; c < op.cols; ++c) out[c] = A(out[c]) + A(x[c]);
  });
}

MIMO_CPU_KERNEL(GatherRows);
MIMO_CPU_KERNEL(ScatterRows);
MIMO_CPU_KERNEL(ScatterAddRows);

}  // namespace mimo
