#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

struct Case {
  int64_t m, n, k;
  double alpha, beta;
  int64_t gap;  // elements between the end of a row and the start of the next
  bool bias;
};

const Case cases[] = {
    {1, 1, 1, 1, 0, 0, false},       {1, 32, 256, 1, 0, 0, true},      {7, 33, 65, 1, 1, 3, true},
    {64, 96, 384, 1, 0, 0, false},   {129, 257, 31, -2, 0.5, 1, true}, {400, 64, 64, 1, 1, 8, false},
    {3, 5, 0, 1, 0, 2, true},        {3, 5, 0, 1, 2, 2, false},        {0, 5, 4, 1, 0, 0, true},
    {5, 0, 4, 1, 0, 0, false},       {130, 140, 300, 1, 0, 5, true},   {2, 2, 1000, 0, 1, 0, false},
    {4, 40, 100, 1, 0, 1, true},     {3, 17, 33, 1, 1, 0, false},      {600, 50, 20, 1, 1, 0, false},
    {250, 48, 500, 1, 0, 0, true},   {97, 400, 193, 1, 1, 0, true},    {550, 33, 400, 1, 1, 0, true},
    {5, 40, 300, 0.3, 0.7, 0, true},
};

// A matrix whose gaps hold a value that must survive and must never be read.
template <class T>
struct Matrix {
  int64_t rows, cols, ld;
  std::vector<T> data;
  Matrix(int64_t r, int64_t c, int64_t gap, std::mt19937& random)
      : rows(r), cols(c), ld(c + gap), data(rows > 0 ? (rows - 1) * ld + cols : 0, poison()) {
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) at(i, j) = T(static_cast<float>(normal(random)));
  }
  static T poison() { return T(std::numeric_limits<float>::quiet_NaN()); }
  T& at(int64_t i, int64_t j) { return data[i * ld + j]; }
  double value(bool transposed, int64_t i, int64_t j) { return transposed ? at(j, i) : at(i, j); }
  void expect_gaps_untouched() {
    for (int64_t i = 0; i + 1 < rows; ++i)
      for (int64_t j = cols; j < ld; ++j)
        EXPECT_TRUE(std::isnan(static_cast<double>(at(i, j)))) << i << ", " << j;
  }
};

// The unit roundoff of a type.
template <class T>
double roundoff() {
  return std::is_same_v<T, double> ? 0x1p-53 : std::is_same_v<T, float> ? 0x1p-24 : 0x1p-8;
}

template <class Op>
void run_with_workspace(const Op& op) {
  std::vector<char> ws(workspace(Cpu{}, op));
  run(Cpu{{ws.data(), static_cast<int64_t>(ws.size())}}, op);
}

// |computed - exact| <= (k + 4) u |alpha| |A||B| + 3 u (|beta C| + |bias|) for sums in any order (Higham),
// and the rounding of the result to C.
template <class T, class C, template <class> class Op>
void check(const Case& c, bool trans_a, bool trans_b) {
  SCOPED_TRACE(testing::Message() << c.m << "x" << c.n << "x" << c.k << " alpha " << c.alpha << " beta "
                                  << c.beta << (trans_a ? " T" : " N") << (trans_b ? "T " : "N ")
                                  << sizeof(T));
  using A = acc_t<T>;
  std::mt19937 random(1);
  Matrix<T> a(trans_a ? c.k : c.m, trans_a ? c.m : c.k, c.gap, random);
  Matrix<T> b(trans_b ? c.n : c.k, trans_b ? c.k : c.n, c.gap, random);
  Matrix<C> y(c.m, c.n, c.gap, random);
  Matrix<T> bias(1, c.n, 0, random);
  if (c.beta == 0) std::fill(y.data.begin(), y.data.end(), y.poison());
  Matrix<C> before = y;

  Op<T> op{.trans_a = trans_a,
           .trans_b = trans_b,
           .m = c.m,
           .n = c.n,
           .k = c.k,
           .alpha = static_cast<A>(c.alpha),
           .a = {a.data.data(), a.ld},
           .b = {b.data.data(), b.ld},
           .beta = static_cast<A>(c.beta),
           .c = {y.data.data(), y.ld}};
  bool with_bias = false;
  if constexpr (requires { op.bias; }) {
    with_bias = c.bias;
    op.bias = c.bias ? bias.data.data() : nullptr;
  }
  run_with_workspace(op);

  for (int64_t i = 0; i < c.m; ++i)
    for (int64_t j = 0; j < c.n; ++j) {
      double sum = 0, size = 0;
      for (int64_t p = 0; p < c.k; ++p) {
        const double x = a.value(trans_a, i, p) * b.value(trans_b, p, j);
        sum += x, size += std::abs(x);
      }
      const double old = c.beta == 0 ? 0 : c.beta * static_cast<double>(before.at(i, j));
      const double shift = with_bias ? static_cast<double>(bias.at(0, j)) : 0;
      const double exact = c.alpha * sum + old + shift;
      const double u = roundoff<A>();
      const double in_sum = static_cast<double>(c.k + 4) * u * std::abs(c.alpha) * size +
                            3 * u * (std::abs(old) + std::abs(shift));
      // A double result is compared with sums in double: both sides err.
      const double bound =
          (std::is_same_v<T, double> ? 2 : 1) * in_sum + roundoff<C>() * (std::abs(exact) + in_sum);
      ASSERT_LE(std::abs(static_cast<double>(y.at(i, j)) - exact), bound) << "at " << i << ", " << j;
    }
  y.expect_gaps_untouched();
}

template <class T>
class GemmOf : public testing::Test {};
using Types = testing::Types<float, bf16, double>;
TYPED_TEST_SUITE(GemmOf, Types);

TYPED_TEST(GemmOf, MatchesTheSum) {
  for (const Case& c : cases)
    for (const int t : {0, 1, 2, 3}) check<TypeParam, TypeParam, Gemm>(c, t & 1, t & 2);
}

TYPED_TEST(GemmOf, AccumulateMatchesTheSum) {
  for (const Case& c : cases)
    for (const int t : {0, 1, 2, 3}) check<TypeParam, acc_t<TypeParam>, GemmAccumulate>(c, t & 1, t & 2);
}

// Shapes that are cut into blocks, at each side and unevenly.
TYPED_TEST(GemmOf, SameBitsForAnyNumberOfThreads) {
  using T = TypeParam;
  const int before = thread_count();
  std::mt19937 random(1);
  for (const auto& [m, n, k] :
       {std::array<int64_t, 3>{150, 256, 64}, {256, 64, 150}, {65, 700, 40}, {1, 4000, 300}, {333, 333, 33}})
    for (const int t : {0, 1, 2, 3}) {
      Matrix<T> a(t & 1 ? k : m, t & 1 ? m : k, 0, random), b(t & 2 ? n : k, t & 2 ? k : n, 0, random);
      Matrix<T> bias(1, n, 0, random), c(m, n, 0, random);
      std::vector<std::vector<T>> results;
      for (const int threads : {1, 2, 5}) {
        set_thread_count(threads);
        Matrix<T> y = c;
        const Gemm<T> op{.trans_a = bool(t & 1),
                         .trans_b = bool(t & 2),
                         .m = m,
                         .n = n,
                         .k = k,
                         .a = {a.data.data(), a.ld},
                         .b = {b.data.data(), b.ld},
                         .beta = 1,
                         .c = {y.data.data(), y.ld},
                         .bias = bias.data.data()};
        run_with_workspace(op);
        results.push_back(y.data);
      }
      for (const auto& r : results)
        EXPECT_EQ(std::memcmp(r.data(), results[0].data(), r.size() * sizeof(T)), 0)
            << m << "x" << n << "x" << k << " transposed " << t;
    }
  set_thread_count(before);
}

// A row of C does not change with the rows it is computed with, nor a column with the columns, beyond few
// rows.
TYPED_TEST(GemmOf, BitsOfAnElementDependOnItsRowAndColumnAlone) {
  using T = TypeParam;
  std::mt19937 random(1);
  const int64_t m = 211, n = 160, k = 400;
  for (const double beta : {0., 1., 0.3})
    for (const int t : {0, 1, 2, 3}) {
      Matrix<T> a(t & 1 ? k : m, t & 1 ? m : k, 0, random), b(t & 2 ? n : k, t & 2 ? k : n, 0, random);
      const Matrix<T> c(m, n, 0, random);
      const auto multiply = [&](int64_t row, int64_t rows, int64_t col, int64_t cols) {
        Matrix<T> part(rows, cols, 0, random);
        for (int64_t i = 0; i < rows; ++i) std::copy_n(&c.data[(row + i) * c.ld + col], cols, &part.at(i, 0));
        const Gemm<T> op{.trans_a = bool(t & 1),
                         .trans_b = bool(t & 2),
                         .m = rows,
                         .n = cols,
                         .k = k,
                         .a = {a.data.data() + (t & 1 ? row : row * k), a.ld},
                         .b = {b.data.data() + (t & 2 ? col * k : col), b.ld},
                         .beta = static_cast<acc_t<T>>(beta),
                         .c = {part.data.data(), part.ld}};
        run_with_workspace(op);
        return part;
      };
      Matrix<T> whole = multiply(0, m, 0, n);
      for (const auto& [row, rows, col, cols] :
           {std::array<int64_t, 4>{0, 5, 0, n - 1}, {100, 111, 0, 1}, {7, 50, 64, 85}, {200, 11, 159, 1}}) {
        Matrix<T> part = multiply(row, rows, col, cols);
        for (int64_t i = 0; i < rows; ++i)
          ASSERT_EQ(std::memcmp(&part.at(i, 0), &whole.at(row + i, col), cols * sizeof(T)), 0)
              << "row " << row + i << " of columns from " << col << " transposed " << t << " beta " << beta;
      }
    }
}

// Nothing is written beyond the workspace, nor beyond C, whatever is cut.
TYPED_TEST(GemmOf, StaysWithinItsWorkspace) {
  using T = TypeParam;
  const int before = thread_count();
  std::mt19937 random(1);
  for (const int threads : {1, 2, 64}) {
    set_thread_count(threads);
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                                  {1, 4000, 300},
                                  {3, 700, 33},
                                  {5, 49, 7},
                                  {215, 193, 400},
                                  {600, 17, 250}})
      for (const int t : {0, 1, 2, 3}) {
        Matrix<T> a(t & 1 ? k : m, t & 1 ? m : k, 0, random), b(t & 2 ? n : k, t & 2 ? k : n, 0, random);
        Matrix<T> c(m + 1, n, 0, random);
        std::fill_n(&c.at(m, 0), n, c.poison());
        const Gemm<T> op{.trans_a = bool(t & 1),
                         .trans_b = bool(t & 2),
                         .m = m,
                         .n = n,
                         .k = k,
                         .alpha = acc_t<T>(0.3),
                         .a = {a.data.data(), a.ld},
                         .b = {b.data.data(), b.ld},
                         .beta = acc_t<T>(0.7),
                         .c = {c.data.data(), n}};
        constexpr char kCanary = 77;
        const int64_t bytes = workspace(Cpu{}, op);
        std::vector<char> ws(bytes + 4096, kCanary);
        run(Cpu{{ws.data(), bytes}}, op);
        EXPECT_EQ(std::count(ws.begin() + bytes, ws.end(), kCanary), 4096)
            << m << "x" << n << "x" << k << " transposed " << t << ", threads " << threads;
        for (int64_t j = 0; j < n; ++j) ASSERT_TRUE(std::isnan(static_cast<double>(c.at(m, j))));
      }
  }
  set_thread_count(before);
}

TEST(Gemm, RefusesAStrideShorterThanItsRow) {
  std::vector<float> x(64);
  std::vector<char> ws(1 << 20);
  const Cpu cpu{{ws.data(), static_cast<int64_t>(ws.size())}};
  for (const int64_t short_one : {0, 1, 2}) {
    const auto ld = [&](int64_t i) { return int64_t{4} - (i == short_one); };
    for (const bool trans : {false, true}) {
      Gemm<float> op{.trans_a = trans,
                     .trans_b = trans,
                     .m = 4,
                     .n = 4,
                     .k = 4,
                     .a = {x.data(), ld(0)},
                     .b = {x.data() + 16, ld(1)},
                     .c = {x.data() + 32, ld(2)}};
      EXPECT_THROW(run(cpu, op), std::invalid_argument);
    }
  }
}

TEST(Gemm, RefusesAShortWorkspace) {
  std::vector<bf16> x(64);
  std::vector<char> ws(16);
  Gemm<bf16> op{.m = 4, .n = 4, .k = 4, .a = {x.data(), 4}, .b = {x.data() + 16, 4}, .c = {x.data() + 32, 4}};
  EXPECT_THROW(run(Cpu{{ws.data(), 16}}, op), std::invalid_argument);
  EXPECT_THROW(run(Cpu{}, op), std::invalid_argument);
  std::vector<float> y(400);
  Gemm<float> wide{
      .m = 10, .n = 10, .k = 4, .a = {y.data(), 4}, .b = {y.data() + 40, 10}, .c = {y.data() + 80, 10}};
  EXPECT_THROW(run(Cpu{{ws.data(), 16}}, wide), std::invalid_argument);
}

}  // namespace
}  // namespace mimo
