#include "kernels/activation.h"

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

double formula(ActivationKind kind, double x) {
  switch (kind) {
    case ActivationKind::relu2:
      return x > 0 ? x * x : 0;
    case ActivationKind::gelu_erf:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case ActivationKind::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ActivationKind::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case ActivationKind::silu:
      return x / (1 + std::exp(-x));
  }
  throw std::logic_error("no such activation");
}

constexpr ActivationKind kKinds[] = {ActivationKind::relu2, ActivationKind::gelu_erf,
                                     ActivationKind::gelu_tanh, ActivationKind::quick_gelu,
                                     ActivationKind::silu};

struct ActivationCase {
  ActivationKind kind;
  int64_t rows, cols, pad;

  std::vector<Shape> inputs() const { return {{rows, cols, pad}}; }
  Shape output() const { return {rows, cols, pad}; }
  int64_t terms() const { return 1; }
  void reference(const Values& in, std::vector<double>& y) const {
    for (size_t i = 0; i < y.size(); ++i) y[i] = formula(kind, in[0][i]);
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    run_op(Activation<T>{.in = {.kind = kind, .rows = rows, .cols = cols, .x = in[0]}, .y = y});
  }
  template <class T>
  Values backward(const Inputs<T>& in, const Matrix<T>& dy) const {
    Matrix<T> dx({rows, cols, pad});
    run_op(ActivationBackward<T>{
        .in = {.kind = kind, .rows = rows, .cols = cols, .x = in[0]}, .dy = dy, .dx = dx});
    return {dx.values()};
  }
};

struct SwiGluCase {
  int64_t rows, cols;

  std::vector<Shape> inputs() const { return {{rows, 2 * cols, 3}}; }
  Shape output() const { return {rows, cols, 1}; }
  int64_t terms() const { return 1; }
  void reference(const Values& in, std::vector<double>& y) const {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t c = 0; c < cols; ++c) {
        const double* x = in[0].data() + i * 2 * cols;
        y[i * cols + c] = formula(ActivationKind::silu, x[c]) * x[cols + c];
      }
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    run_op(SwiGlu<T>{.in = {.rows = rows, .cols = cols, .x = in[0]}, .y = y});
  }
  template <class T>
  Values backward(const Inputs<T>& in, const Matrix<T>& dy) const {
    Matrix<T> dx({rows, 2 * cols, 3});
    run_op(SwiGluBackward<T>{.in = {.rows = rows, .cols = cols, .x = in[0]}, .dy = dy, .dx = dx});
    return {dx.values()};
  }
};

TEST(Activation, Table) {
  for (ActivationKind kind : kKinds)
    for (int64_t rows : {0, 1, 5})
      for (int64_t cols : {0, 1, 33})
        for (int64_t pad : {0, 2}) check_op(ActivationCase{kind, rows, cols, pad});
}
TEST(SwiGlu, Table) {
  for (int64_t rows : {0, 1, 5})
    for (int64_t cols : {0, 1, 33}) check_op(SwiGluCase{rows, cols});
}
// In float, in units in the last place: also far to the left, where 1 + erf would have no digits left.
TEST(Activation, FloatAccuracy) {
  for (ActivationKind kind : kKinds) {
    const int64_t n = 100001;
    std::vector<float> x(n), y(n);
    for (int64_t i = 0; i < n; ++i) x[i] = -12.5f + 25 * float(i) / float(n);
    run_op(Activation<float>{.in = {.kind = kind, .rows = 1, .cols = n, .x = {x.data(), n}},
                             .y = {y.data(), n}});
    double worst = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double want = formula(kind, x[i]);
      if (kind == ActivationKind::gelu_tanh && x[i] < -4) continue;  // 1 + tanh of the formula cancels
      const float nearest = std::fabs(float(want));
      const double unit =
          double(std::nextafter(nearest, std::numeric_limits<float>::infinity())) - double(nearest);
      worst = std::max(worst, std::fabs(double(y[i]) - want) / unit);
    }
    // quick_gelu's and gelu_tanh's arguments of exp, up to 21 and 16, are themselves rounded, as silu's is
    // not.
    EXPECT_LE(worst, kind == ActivationKind::quick_gelu || kind == ActivationKind::gelu_tanh ? 32 : 7)
        << int(kind);
  }
}

// Values far outside come out as their limits, not as NaN; NaN stays.
TEST(Activation, Extremes) {
  const float x[] = {-1e30f, -200.f, 200.f, std::numeric_limits<float>::infinity(), std::nanf("")};
  for (ActivationKind kind : kKinds) {
    float y[5];
    run_op(Activation<float>{.in = {.kind = kind, .rows = 1, .cols = 5, .x = {x, 5}}, .y = {y, 5}});
    EXPECT_EQ(y[0], 0) << int(kind);
    EXPECT_EQ(y[1], 0) << int(kind);
    EXPECT_EQ(y[2], kind == ActivationKind::relu2 ? 40000.f : 200.f) << int(kind);
    EXPECT_EQ(y[3], x[3]) << int(kind);
    EXPECT_TRUE(std::isnan(y[4])) << int(kind);
  }
}

TEST(Activation, SameBitsForAnyNumberOfThreads) {
  for (ActivationKind kind : kKinds) check_threads(ActivationCase{kind, 333, 200, 0});
  check_threads(SwiGluCase{333, 100});
}

}  // namespace
}  // namespace mimo::op_test
