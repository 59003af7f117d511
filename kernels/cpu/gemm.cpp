// float: oneDNN's dnnl_sgemm, whose call costs about 0.1 us, so that small products need no other path.
// bf16: operands become float in the workspace, one sgemm, one rounding. double: blocked loops, for the
// tests.
#include "kernels/gemm.h"

#include <dnnl.h>
#include <omp.h>

#include <algorithm>

#include "kernels/portable/scratch.h"

namespace mimo {
namespace {

// Threads cost more than they save below about a MFLOP, where the library would use them already; while other
// ranks compete for the cores, a thread that is not running costs milliseconds.
class ThreadsFor {
 public:
  explicit ThreadsFor(int64_t multiply_adds) : before_(omp_get_max_threads()) {
    if (multiply_adds < 1 << 19) omp_set_num_threads(1);
  }
  ~ThreadsFor() { omp_set_num_threads(before_); }
  ThreadsFor(const ThreadsFor&) = delete;
  ThreadsFor& operator=(const ThreadsFor&) = delete;

 private:
  int before_;
};

void product(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
             int64_t a_ld, const float* b, int64_t b_ld, float beta, float* c, int64_t c_ld) {
  const ThreadsFor threads(m * n * k);
  const dnnl_status_t status =
      dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, a_ld, b, b_ld, beta, c, c_ld);
  if (status != dnnl_success)
    throw std::invalid_argument("dnnl_sgemm refused m=" + std::to_string(m) + " n=" + std::to_string(n) +
                                " k=" + std::to_string(k) + " a_ld=" + std::to_string(a_ld) +
                                " b_ld=" + std::to_string(b_ld) + " c_ld=" + std::to_string(c_ld) +
                                ". hint: a row stride is shorter than its row?");
}

// C += alpha op(A) op(B) with a block of op(B) packed row-major, so that the inner loop runs along rows of C.
void product(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a,
             int64_t a_ld, const double* b, int64_t b_ld, double beta, double* c, int64_t c_ld) {
  constexpr int64_t block_k = 64, block_n = 128;
#pragma omp parallel for schedule(static) if (m * n * k > 1 << 20)
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) c[i * c_ld + j] = beta == 0 ? 0 : beta * c[i * c_ld + j];
#pragma omp parallel for schedule(static) if (m * n * k > 1 << 20)
  for (int64_t j0 = 0; j0 < n; j0 += block_n) {
    double packed[block_k * block_n];
    const int64_t cols = std::min(block_n, n - j0);
    for (int64_t p0 = 0; p0 < k; p0 += block_k) {
      const int64_t depth = std::min(block_k, k - p0);
      for (int64_t p = 0; p < depth; ++p)
        for (int64_t j = 0; j < cols; ++j)
          packed[p * block_n + j] = trans_b ? b[(j0 + j) * b_ld + p0 + p] : b[(p0 + p) * b_ld + j0 + j];
      for (int64_t i = 0; i < m; ++i)
        for (int64_t p = 0; p < depth; ++p) {
          const double x = alpha * (trans_a ? a[(p0 + p) * a_ld + i] : a[i * a_ld + p0 + p]);
          double* row = c + i * c_ld + j0;
#pragma omp simd
          for (int64_t j = 0; j < cols; ++j) row[j] += x * packed[p * block_n + j];
        }
    }
  }
}

template <class To, class From>
void convert(int64_t rows, int64_t cols, const From* x, int64_t x_ld, To* y, int64_t y_ld) {
#pragma omp parallel for schedule(static) if (rows * cols > 1 << 16)
  for (int64_t i = 0; i < rows; ++i)
#pragma omp simd
    for (int64_t j = 0; j < cols; ++j) y[i * y_ld + j] = To(static_cast<float>(x[i * x_ld + j]));
}

template <class A, class T>
void add_bias(int64_t m, int64_t n, const T* bias, A* c, int64_t c_ld) {
#pragma omp parallel for schedule(static) if (m * n > 1 << 16)
  for (int64_t i = 0; i < m; ++i)
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) c[i * c_ld + j] += static_cast<A>(bias[j]);
}

// The float copies of a bf16 product, packed: rows of op(X) as they are stored.
struct Operands {
  float *a, *b, *c;
};
template <class Op>
Operands operands(const Op& op, bool with_c, Scratch& scratch) {
  float* a = scratch.take<float>(op.m * op.k);
  float* b = scratch.take<float>(op.k * op.n);
  return {a, b, with_c ? scratch.take<float>(op.m * op.n) : nullptr};
}

// c = alpha op(A) op(B) + beta c for any storage type of A and B; the copies of bf16 ones are given.
template <class T, class Op>
void multiply(const Op& op, const Operands& copies, acc_t<T>* c, int64_t c_ld) {
  if (op.k == 0) {  // A and B may be null, which a library is entitled to refuse
    for (int64_t i = 0; i < op.m; ++i)
      for (int64_t j = 0; j < op.n; ++j) c[i * c_ld + j] = op.beta == 0 ? 0 : op.beta * c[i * c_ld + j];
  } else if constexpr (std::is_same_v<T, bf16>) {
    const int64_t a_rows = op.trans_a ? op.k : op.m, a_cols = op.trans_a ? op.m : op.k;
    const int64_t b_rows = op.trans_b ? op.n : op.k, b_cols = op.trans_b ? op.k : op.n;
    convert(a_rows, a_cols, op.a, op.a_ld, copies.a, a_cols);
    convert(b_rows, b_cols, op.b, op.b_ld, copies.b, b_cols);
    product(op.trans_a, op.trans_b, op.m, op.n, op.k, op.alpha, copies.a, a_cols, copies.b, b_cols, op.beta,
            c, c_ld);
  } else {
    product(op.trans_a, op.trans_b, op.m, op.n, op.k, op.alpha, op.a, op.a_ld, op.b, op.b_ld, op.beta, c,
            c_ld);
  }
}

}  // namespace

template <class T>
int64_t workspace(const Cpu&, const Gemm<T>& op) {
  Scratch scratch;
  if constexpr (std::is_same_v<T, bf16>) operands(op, true, scratch);
  return scratch.bytes();
}

template <class T>
int64_t workspace(const Cpu&, const GemmAccumulate<T>& op) {
  Scratch scratch;
  if constexpr (std::is_same_v<T, bf16>) operands(op, false, scratch);
  return scratch.bytes();
}

template <class T>
void run(const Cpu& cpu, const Gemm<T>& op) {
  if (op.m == 0 || op.n == 0) return;
  if constexpr (std::is_same_v<T, bf16>) {
    Scratch scratch(cpu.ws);
    const Operands copies = operands(op, true, scratch);
    if (op.beta != 0) convert(op.m, op.n, op.c, op.c_ld, copies.c, op.n);
    multiply<T>(op, copies, copies.c, op.n);
    if (op.bias) add_bias(op.m, op.n, op.bias, copies.c, op.n);
    convert(op.m, op.n, copies.c, op.n, op.c, op.c_ld);
  } else {
    multiply<T>(op, {}, op.c, op.c_ld);
    if (op.bias) add_bias(op.m, op.n, op.bias, op.c, op.c_ld);
  }
}

template <class T>
void run(const Cpu& cpu, const GemmAccumulate<T>& op) {
  if (op.m == 0 || op.n == 0) return;
  Operands copies{};
  if constexpr (std::is_same_v<T, bf16>) {
    Scratch scratch(cpu.ws);
    copies = operands(op, false, scratch);
  }
  multiply<T>(op, copies, op.c, op.c_ld);
}

MIMO_CPU_KERNEL(Gemm);
MIMO_CPU_KERNEL(GemmAccumulate);
template int64_t workspace<float>(const Cpu&, const Gemm<float>&);
template int64_t workspace<bf16>(const Cpu&, const Gemm<bf16>&);
template int64_t workspace<double>(const Cpu&, const Gemm<double>&);
template int64_t workspace<float>(const Cpu&, const GemmAccumulate<float>&);
template int64_t workspace<bf16>(const Cpu&, const GemmAccumulate<bf16>&);
template int64_t workspace<double>(const Cpu&, const GemmAccumulate<double>&);

}  // namespace mimo
