#include "kernels/gemm.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Shape4 {
  int64_t m, n, k;
  double alpha, beta;
  int64_t pad;    // elements between the end of a row and the start of the next, of A, B and C
  int64_t shift;  // elements from an aligned address to C and to the bias; -1: no bias
};

// Sizes around tiles and vectors, padded and unpadded rows, misaligned operands, empty ones.
const Shape4 shapes[] = {
    {1, 1, 1, 1, 0, 0, -1},     {1, 40, 72, 1, 0, 0, 0},      {33, 48, 65, 1, 1, 3, 0},
    {64, 96, 160, 1, 0, 8, -1}, {130, 70, 31, -2, 0.5, 1, 0}, {48, 64, 64, 1, 1, 8, -1},
    {16, 40, 32, 1, 0, 0, 1},   {16, 24, 32, 2, 0.5, 8, 3},   {9, 136, 0, 1, 0, 2, 0},
    {3, 5, 0, 1, 2, 2, -1},     {5, 300, 0, 1, 0.5, 0, 1},    {4, 8, 0, 1, 1, 0, -1},
    {0, 5, 4, 1, 0, 0, 0},      {5, 0, 4, 1, 0, 0, -1},       {2, 2, 200, 0, 1, 0, -1},
};

// Bits: op(A), op(B). Without a product they only change what is not read.
std::vector<int> transposes(const Shape4& s) {
  return s.m * s.n * s.k > 0 ? std::vector<int>{0, 1, 2, 3} : std::vector<int>{0, 3};
}

// Where a stored [rows, cols] operand of op(X) lies: rows and columns change places.
template <class T>
Operand<const T> operand(Case<T>& c, const char* name, bool transposed, int64_t rows, int64_t cols,
                         int64_t pad) {
  return transposed ? c.in(name, cols, rows, pad) : c.in(name, rows, cols, pad);
}

TEST(CudaGemm, AllTransposes) {
  for (const Shape4& s : shapes)
    for (const int t : transposes(s)) {
      SCOPED_TRACE(testing::Message() << s.m << "x" << s.n << "x" << s.k << " transposes " << t);
      const bool ta = t & 1, tb = t & 2;
      check_cuda([&]<class T>(Case<T>& c) {
        using A = acc_t<T>;
        const auto a = operand(c, "a", ta, s.m, s.k, s.pad);
        const auto b = operand(c, "b", tb, s.k, s.n, s.pad);
        // beta = 0 must not read C, which is NaN then.
        const auto y = s.beta == 0 ? c.out("c", s.m, s.n, s.pad) : c.inout("c", s.m, s.n, s.pad);
        const T* bias = s.shift < 0 ? nullptr : c.in("bias", 1, s.n + s.shift) + s.shift;
        return Gemm<T>{.trans_a = ta,
                       .trans_b = tb,
                       .m = s.m,
                       .n = s.n,
                       .k = s.k,
                       .alpha = A(s.alpha),
                       .a = a,
                       .b = b,
                       .beta = A(s.beta),
                       .c = y,
                       .bias = bias};
      });
    }
}

TEST(CudaGemm, AccumulatesInFloat) {
  for (const Shape4& s : shapes)
    for (const int t : transposes(s)) {
      SCOPED_TRACE(testing::Message() << s.m << "x" << s.n << "x" << s.k << " transposes " << t);
      const bool ta = t & 1, tb = t & 2;
      check_cuda([&]<class T>(Case<T>& c) {
        using A = acc_t<T>;
        const auto a = operand(c, "a", ta, s.m, s.k, s.pad);
        const auto b = operand(c, "b", tb, s.k, s.n, s.pad);
        const int64_t ld = s.n + s.pad;  // what lies between the rows stays as it was
        A* y = s.beta == 0 && s.pad == 0 ? c.acc_out("c", s.m, ld) : c.sum("c", s.m, ld);
        return GemmAccumulate<T>{.trans_a = ta,
                                 .trans_b = tb,
                                 .m = s.m,
                                 .n = s.n,
                                 .k = s.k,
                                 .alpha = A(s.alpha),
                                 .a = a,
                                 .b = b,
                                 .beta = A(s.beta),
                                 .c = {y, ld}};
      });
    }
}

// Operands and results that start between 16-byte boundaries: column slices of wider matrices.
TEST(CudaGemm, Slices) {
  for (const int64_t shift : {1, 2, 4})
    check_cuda([&]<class T>(Case<T>& c) {
      const int64_t m = 24, n = 40, k = 48;
      return Gemm<T>{.trans_b = true,
                     .m = m,
                     .n = n,
                     .k = k,
                     .a = {c.in("a", m, k + shift) + shift, k + shift},
                     .b = c.in("b", n, k + 8),
                     .beta = 1,
                     .c = {c.inout("c", m, n + shift) + shift, n + shift}};
    });
}

TEST(CudaGemm, NeedsItsWorkspace) {
  std::vector<bf16> x(64, bf16(1.0f));
  const Gemm<bf16> op{
      .m = 4, .n = 4, .k = 4, .a = {x.data(), 4}, .b = {x.data() + 16, 4}, .c = {x.data() + 32, 4}};
  EXPECT_GT(workspace(cuda_context(), op), 0);
  EXPECT_THROW(run(cuda_context(), op), std::invalid_argument);
}

TEST(CudaGemm, DoubleComputesOnTheCpuAlone) {
  double x = 1;
  const Gemm<double> op{.m = 1, .n = 1, .k = 1, .a = {&x, 1}, .b = {&x, 1}, .c = {&x, 1}};
  EXPECT_THROW(run(cuda_context(), op), std::runtime_error);
}

}  // namespace
}  // namespace mimo::op_test
