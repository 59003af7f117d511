#include "kernels/embedding.h"

#include "kernels/cpu/threads.h"

namespace mimo {

template <class T>
void run(const Cpu&, const Embedding<T>& op) {
  parallel_for(op.in.tokens, 2 * op.in.tokens * op.in.cols * int64_t{sizeof(T)}, [&](int64_t t) {
    const int64_t row = op.in.ids[t] - op.in.first;
    T* out = op.out[t];
    if (op.in.ids[t] >= 0 && row >= 0 && row < op.in.rows)
      std::copy_n(op.table + row * op.in.cols, op.in.cols, out);
    else
      std::fill_n(out, op.in.cols, T(0));
  });
}

// A thread owns columns, not tokens: every element is then summed in token order by one thread.
template <class T>
void run(const Cpu&, const EmbeddingBackward<T>& op) {
  constexpr int kCols = 64;
  const int64_t bytes = op.in.tokens * op.in.cols * int64_t{sizeof(T) + 2 * sizeof(acc_t<T>)};
  parallel_for((op.in.cols + kCols - 1) / kCols, bytes, [&](int64_t block) {
    const int begin = static_cast<int>(block) * kCols, end = std::min(op.in.cols, begin + kCols);
    for (int64_t t = 0; t < op.in.tokens; ++t) {
      const int64_t row = op.in.ids[t] - op.in.first;
      if (op.in.ids[t] < 0 || row < 0 || row >= op.in.rows) continue;
      const T* dout = op.dout[t];
      acc_t<T>* dtable = op.dtable + row * op.in.cols;
#pragma omp simd
      for (int c = begin; c < end; ++c) dtable[c] += acc_t<T>(dout[c]);
    }
  });
}

MIMO_CPU_KERNEL(Embedding);
MIMO_CPU_KERNEL(EmbeddingBackward);

}  // namespace mimo
