// One op, one row: an op is described once (its inputs, its formula in plain double code, how to call the
// kernel forward and backward) and check_op derives the tests from that, for every dtype.
//
// A description `Op` has
//   std::vector<Shape> inputs() const          shapes of the inputs that may have gradients
//   Shape output() const
//   int64_t terms() const                      how many terms one element of a result sums, at most
//   void reference(const Values& in, std::vector<double>& y) const               y of the formula
//   template <class T> void forward(const Inputs<T>& in, Matrix<T>& y) const
//   template <class T> Values backward(const Inputs<T>& in, const Matrix<T>& dy) const   one per input
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/threads.h"
#include "kernels/kernel.h"
#include "tests/kernels/gradcheck.h"

namespace mimo::op_test {

struct Shape {
  int64_t rows, cols;
  int64_t pad = 0;  // the row stride is cols + pad
};

// A buffer of exactly the size that a strided operand may touch. Padding holds NaN and has to keep it.
template <class T>
struct Matrix {
  int64_t rows, cols, ld;
  std::vector<T> data;

  explicit Matrix(Shape s, double value = 0)
      : rows(s.rows),
        cols(s.cols),
        ld(s.cols + s.pad),
        data(rows > 0 ? (rows - 1) * ld + cols : 0, T(std::numeric_limits<float>::quiet_NaN())) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t c = 0; c < cols; ++c) (*this)(i, c) = T(static_cast<acc_t<T>>(value));
  }
  Matrix(Shape s, const std::vector<double>& values) : Matrix(s) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t c = 0; c < cols; ++c) (*this)(i, c) = T(static_cast<acc_t<T>>(values[i * cols + c]));
  }
  T& operator()(int64_t i, int64_t c) { return data[i * ld + c]; }
  T operator()(int64_t i, int64_t c) const { return data[i * ld + c]; }
  T* ptr() { return data.data(); }
  const T* ptr() const { return data.data(); }
  operator mimo::Rows<T>() { return {ptr(), ld}; }
  operator mimo::Rows<const T>() const { return {ptr(), ld}; }

  std::vector<double> values(double minus = 0) const {
    for (int64_t i = 0; i + 1 < rows; ++i)
      for (int64_t c = cols; c < ld; ++c) EXPECT_TRUE(std::isnan(double((*this)(i, c)))) << "padding written";
    std::vector<double> v(rows * cols);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t c = 0; c < cols; ++c) v[i * cols + c] = double((*this)(i, c)) - minus;
    return v;
  }
};

template <class T>
using Inputs = std::vector<Matrix<T>>;
using Values = std::vector<std::vector<double>>;

// Gradients of parameters are added to: start from this and take it off again.
constexpr double kBefore = 0.5;
template <class T>
Matrix<acc_t<T>> accumulator(Shape s) {
  return Matrix<acc_t<T>>(s, kBefore);
}

// Runs an op with exactly the scratch it asks for, full of NaN.
template <class Op>
void run_op(const Op& op) {
  const int64_t bytes = workspace(Cpu{}, op);
  std::vector<uint64_t> scratch((bytes + 7) / 8, ~uint64_t{0});
  run(Cpu{{scratch.data(), bytes}}, op);
}

// Odd multiples of 1/128 in (-2, 2): every dtype holds them exactly, and none is near the kink of relu2.
inline std::vector<double> random_values(int64_t n, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::vector<double> v(n);
  for (double& x : v) x = (double(engine() % 256) * 2 - 255) / 128;
  return v;
}

template <class T>
constexpr double epsilon() {
  return std::is_same_v<T, bf16> ? 0x1p-7 : double(std::numeric_limits<acc_t<T>>::epsilon());
}

inline double max_abs(const std::vector<double>& v) {
  double m = 0;
  for (double x : v) m = std::max(m, std::fabs(x));
  return m;
}

// A sum of n terms in acc_t is off by at most n eps times the sum of magnitudes (a few more operations: + 8),
// taken here as that multiple of the largest result; then one rounding to T, half an eps of the element.
template <class T>
void expect_near(const std::vector<double>& got, const std::vector<double>& want, int64_t terms,
                 const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  const double sums = double(terms + 8) * epsilon<acc_t<T>>() * std::max(1.0, max_abs(want));
  for (size_t i = 0; i < want.size(); ++i) {
    const double bound =
        sums + (std::is_same_v<T, bf16> ? 0.5 * epsilon<T>() * (std::fabs(want[i]) + sums) : 0);
    ASSERT_LE(std::fabs(got[i] - want[i]), bound) << what << "[" << i << "] is " << got[i] << ", expected "
                                                  << want[i] << " (" << name_of(dtype_of<T>()) << ")";
  }
}

template <class Op>
Values make_inputs(const Op& op) {
  Values in;
  for (const Shape& s : op.inputs()) in.push_back(random_values(s.rows * s.cols, in.size() + 1));
  return in;
}

template <class T, class Op>
Inputs<T> to_inputs(const Op& op, const Values& values) {
  Inputs<T> in;
  const auto shapes = op.inputs();
  for (size_t i = 0; i < shapes.size(); ++i) in.emplace_back(shapes[i], values[i]);
  return in;
}

template <class T, class Op>
std::vector<double> run_forward(const Op& op, const Values& in) {
  Matrix<T> y(op.output(), std::numeric_limits<float>::quiet_NaN());
  op.template forward<T>(to_inputs<T>(op, in), y);
  return y.values();
}

template <class T, class Op>
Values run_backward(const Op& op, const Values& in, const std::vector<double>& dy) {
  return op.template backward<T>(to_inputs<T>(op, in), Matrix<T>(op.output(), dy));
}

// Forward in every dtype against the formula, backward in double against central differences, and in the
// other dtypes against that in double.
template <class Op>
void check_op(const Op& op) {
  const Values in = make_inputs(op);
  const Shape out = op.output();
  std::vector<double> want(out.rows * out.cols);
  op.reference(in, want);
  expect_near<double>(run_forward<double>(op, in), want, op.terms(), "y");
  expect_near<float>(run_forward<float>(op, in), want, op.terms(), "y");
  expect_near<bf16>(run_forward<bf16>(op, in), want, op.terms(), "y");

  const std::vector<double> dy = random_values(out.rows * out.cols, 99);
  const Values gradient = run_backward<double>(op, in, dy);
  ASSERT_EQ(gradient.size(), in.size());
  Values at = in;
  for (size_t i = 0; i < in.size(); ++i)
    check_gradient(
        [&] {
          std::vector<double> y(out.rows * out.cols);
          op.reference(at, y);
          double sum = 0;
          for (size_t k = 0; k < y.size(); ++k) sum += dy[k] * y[k];
          return sum;
        },
        at[i], gradient[i], ("gradient of input " + std::to_string(i)).c_str());
  const Values in_float = run_backward<float>(op, in, dy), in_bf16 = run_backward<bf16>(op, in, dy);
  for (size_t i = 0; i < in.size(); ++i) {
    expect_near<float>(in_float[i], gradient[i], op.terms(), "gradient");
    expect_near<bf16>(in_bf16[i], gradient[i], op.terms(), "gradient");
  }
}

// The same bits for any number of threads: use a shape that is large enough to be threaded.
template <class Op>
void check_threads(const Op& op) {
  const int before = thread_count();
  const Values in = make_inputs(op);
  const Shape out = op.output();
  const std::vector<double> dy = random_values(out.rows * out.cols, 99);
  set_thread_count(1);
  const auto y = run_forward<float>(op, in);
  const auto gradient = run_backward<float>(op, in, dy);
  for (int threads : {2, 3}) {
    set_thread_count(threads);
    EXPECT_EQ(run_forward<float>(op, in), y) << threads << " threads";
    EXPECT_EQ(run_backward<float>(op, in, dy), gradient) << threads << " threads";
  }
  set_thread_count(before);
}

}  // namespace mimo::op_test
