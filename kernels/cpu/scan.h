// What the scans share: softplus, the cut of a sequence into chunks, the order of tasks, scratch.
#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/threads.h"
#include "kernels/kernel.h"
#include "kernels/portable/scratch.h"

namespace mimo::cpu {

// log(1 + exp x), and x above 20. In float without a branch, as max(x, 0) + log1p(u), u = exp(-|x|) <= 1, and
// log1p(u) = 2 artanh(w), w = u / (2 + u) <= 1/3, by its series; the rest after w^17 is below 2e-9.
template <class A>
inline A softplus(A x) {
  if constexpr (std::is_same_v<A, double>) {
    return x > 20 ? x : std::log1p(std::exp(x));
  } else {
    const A u = fast_exp(-std::abs(x)), w = u / (2 + u), q = w * w;
    A p = q * (A(1) / 17) + A(1) / 15;
    p = p * q + A(1) / 13;
    p = p * q + A(1) / 11;
    p = p * q + A(1) / 9;
    p = p * q + A(1) / 7;
    p = p * q + A(1) / 5;
    p = p * q + A(1) / 3;
    return std::max(x, A(0)) + 2 * (p * q * w + w);
  }
}
// Its derivative.
template <class A>
inline A softplus_slope(A x) {
  return x > 20 ? A(1) : sigmoid(x);
}

// A sequence in chunks of nearly equal length, at most `longest`.
struct Chunks {
  int count, size, length;
  Chunks(int rows, int longest)
      : count((rows + longest - 1) / longest), size(count ? (rows + count - 1) / count : 0), length(rows) {
    count = size ? (rows + size - 1) / size : 0;
  }
  int begin(int c) const { return c * size; }
  int rows(int c) const { return std::min(size, length - c * size); }
};

inline int longest_sequence(int sequences, const int32_t* cu) {
  int n = 0;
  for (int s = 0; s < sequences; ++s) n = std::max(n, cu[s + 1] - cu[s]);
  return n;
}

// Sequences by falling length, so that dynamic scheduling ends evenly. One thread takes them as they come.
inline void order_by_length(int sequences, const int32_t* cu, int32_t* order) {
  std::iota(order, order + sequences, 0);
  if (thread_count() == 1) return;
  std::sort(order, order + sequences, [cu](int i, int j) {
    const int a = cu[i + 1] - cu[i], b = cu[j + 1] - cu[j];
    return a != b ? a > b : i < j;
  });
}

// Second stage over the parts of an activation's gradient: out = sum over blocks of sums [blocks, rows,
// cols], in order.
template <class T, class A>
void sum_blocks(int64_t blocks, int64_t rows, int cols, const A* sums, const Rows<T>& out) {
  parallel_for(rows, blocks * rows * cols * int64_t{sizeof(A)}, [&](int64_t i) {
    const A* row = sums + i * cols;
    T* to = out[i];
#pragma omp simd
    for (int n = 0; n < cols; ++n) {
      A sum = 0;
      for (int64_t b = 0; b < blocks; ++b) sum += row[b * rows * cols + n];
      to[n] = sum;
    }
  });
}

// Treats subnormal numbers as zero while it lives: decays reach them, and each would cost about 150 cycles.
class FlushSubnormals {
 public:
#if defined(__SSE__)
  FlushSubnormals() : before_(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(before_ | 0x8040); }
  ~FlushSubnormals() { __builtin_ia32_ldmxcsr(before_); }
#else
  FlushSubnormals() {}
#endif
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  [[maybe_unused]] unsigned before_ = 0;
};

// A thread's part of memory that holds one part a thread.
inline Scratch thread_scratch(char* memory, int64_t bytes, int thread) {
  return Scratch(Workspace{memory + thread * bytes, bytes});
}

}  // namespace mimo::cpu
