// C is cut into blocks, each computed by one thread: in float by oneDNN, whose call costs about 0.1 us, so
// that small products need no other path; in double by loops, for the tests. bf16: operands become float in
// the workspace, and a block is rounded once when it is done.
#include "kernels/gemm.h"

#include <algorithm>

#include "kernels/cpu/sgemm.h"
#include "kernels/cpu/threads.h"
#include "kernels/portable/scratch.h"

namespace mimo {
namespace {

// Rows [row, row + rows) and columns [col, col + cols) of C.
struct Block {
  int64_t row, col, rows, cols;
};

// Halves C along its longer side: into two where it takes kHalve multiply-adds (10 us of one core), on into
// blocks of at most kBlock, at most kMost. A product's bits depend on its shape: the cut is a function of m,
// n and k alone, whatever the number of threads.
class Grid {
  static constexpr int64_t kHalve = 1 << 19, kBlock = 1 << 21, kMost = 64, kSmallest = 32, kStep = 16;

 public:
  Grid(int64_t m, int64_t n, int64_t k) : m_(m), n_(n), rows_(m), cols_(n) {
    while (rows_ * cols_ * k > (count() == 1 ? kHalve : kBlock) && count() < kMost) {
      int64_t& longer = rows_ >= cols_ ? rows_ : cols_;
      if (longer <= kSmallest) break;
      longer = ((longer + 1) / 2 + kStep - 1) / kStep * kStep;
    }
  }
  int64_t count() const { return down() * across(); }
  Block operator[](int64_t i) const {
    const int64_t row = i / across() * rows_, col = i % across() * cols_;
    return {row, col, std::min(rows_, m_ - row), std::min(cols_, n_ - col)};
  }

 private:
  int64_t down() const { return (m_ + rows_ - 1) / rows_; }
  int64_t across() const { return (n_ + cols_ - 1) / cols_; }
  int64_t m_, n_, rows_, cols_;
};

void product(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
             int64_t a_ld, const float* b, int64_t b_ld, float beta, float* c, int64_t c_ld) {
  cpu::sgemm(trans_a, trans_b, m, n, k, alpha, a, a_ld, b, b_ld, beta, c, c_ld);
}

template <class A>
void scale(int64_t m, int64_t n, A beta, A* c, int64_t c_ld) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) c[i * c_ld + j] = beta == 0 ? 0 : beta * c[i * c_ld + j];
}

// C += alpha op(A) op(B) with a block of op(B) packed row-major, so that the inner loop runs along rows of C.
void product(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a,
             int64_t a_ld, const double* b, int64_t b_ld, double beta, double* c, int64_t c_ld) {
  constexpr int64_t block_k = 64, block_n = 128;
  scale(m, n, beta, c, c_ld);
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
void convert_row(int64_t n, const From* x, To* y) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) y[j] = To(static_cast<float>(x[j]));
}

// A whole operand.
template <class To, class From>
void convert(int64_t rows, int64_t cols, const From* x, int64_t x_ld, To* y, int64_t y_ld) {
  parallel_for(rows, rows * cols * int64_t{sizeof(From) + sizeof(To)},
               [&](int64_t i) { convert_row(cols, x + i * x_ld, y + i * y_ld); });
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

// c = alpha op(A) op(B) + beta c in the type of sums, then finish(block) for each block of it.
template <class A, class Op, class F>
void multiply(const Op& op, const A* a, int64_t a_ld, const A* b, int64_t b_ld, A* c, int64_t c_ld,
              F&& finish) {
  const Grid grid(op.m, op.n, op.k);
  parallel_for(grid.count(), op.m * op.n * op.k / 2, [&](int64_t i) {
    const Block part = grid[i];
    A* out = c + part.row * c_ld + part.col;
    if (op.k == 0)  // A and B may be null, which a library is entitled to refuse
      scale(part.rows, part.cols, op.beta, out, c_ld);
    else
      product(op.trans_a, op.trans_b, part.rows, part.cols, op.k, op.alpha,
              a + part.row * (op.trans_a ? 1 : a_ld), a_ld, b + part.col * (op.trans_b ? b_ld : 1), b_ld,
              op.beta, out, c_ld);
    finish(part);
  });
}
// The same for bf16 operands, by way of their copies.
template <class Op, class F>
void multiply(const Op& op, const Operands& copies, float* c, int64_t c_ld, F&& finish) {
  const int64_t a_rows = op.trans_a ? op.k : op.m, a_cols = op.trans_a ? op.m : op.k;
  const int64_t b_rows = op.trans_b ? op.n : op.k, b_cols = op.trans_b ? op.k : op.n;
  convert(a_rows, a_cols, op.a, op.a_ld, copies.a, a_cols);
  convert(b_rows, b_cols, op.b, op.b_ld, copies.b, b_cols);
  multiply(op, copies.a, a_cols, copies.b, b_cols, c, c_ld, finish);
}

template <class A, class T>
void add_bias(const Block& part, const T* bias, A* c, int64_t c_ld) {
  if (!bias) return;
  for (int64_t i = part.row; i < part.row + part.rows; ++i)
#pragma omp simd
    for (int64_t j = part.col; j < part.col + part.cols; ++j) c[i * c_ld + j] += static_cast<A>(bias[j]);
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
    multiply(op, copies, copies.c, op.n, [&](const Block& part) {
      add_bias(part, op.bias, copies.c, op.n);
      for (int64_t i = part.row; i < part.row + part.rows; ++i)
        convert_row(part.cols, copies.c + i * op.n + part.col, op.c + i * op.c_ld + part.col);
    });
  } else {
    multiply(op, op.a, op.a_ld, op.b, op.b_ld, op.c, op.c_ld,
             [&](const Block& part) { add_bias(part, op.bias, op.c, op.c_ld); });
  }
}

template <class T>
void run(const Cpu& cpu, const GemmAccumulate<T>& op) {
  if (op.m == 0 || op.n == 0) return;
  const auto finish = [](const Block&) {};
  if constexpr (std::is_same_v<T, bf16>) {
    Scratch scratch(cpu.ws);
    multiply(op, operands(op, false, scratch), op.c, op.c_ld, finish);
  } else {
    multiply(op, op.a, op.a_ld, op.b, op.b_ld, op.c, op.c_ld, finish);
  }
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
