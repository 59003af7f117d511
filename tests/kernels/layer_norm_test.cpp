#include "kernels/layer_norm.h"

#include <random>

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

struct LayerNormCase {
  int64_t rows;
  int cols;
  double eps = 0.1;

  std::vector<Shape> inputs() const { return {{rows, cols, 5}, {1, cols}, {1, cols}}; }
  Shape output() const { return {rows, cols, 3}; }
  int64_t terms() const { return std::max<int64_t>(rows, cols); }

  void reference(const Values& in, std::vector<double>& y) const {
    for (int64_t i = 0; i < rows; ++i) {
      const double* x = in[0].data() + i * cols;
      double mean = 0, variance = 0;
      for (int c = 0; c < cols; ++c) mean += x[c] / cols;
      for (int c = 0; c < cols; ++c) variance += (x[c] - mean) * (x[c] - mean) / cols;
      for (int c = 0; c < cols; ++c)
        y[i * cols + c] = in[1][c] * (x[c] - mean) / std::sqrt(variance + eps) + in[2][c];
    }
  }
  template <class T>
  LayerNormInputs<T> inputs(const Inputs<T>& in) const {
    return {.rows = rows, .cols = cols, .x = in[0], .w = in[1].ptr()};
  }
  template <class T>
  LayerNorm<T> op(const Inputs<T>& in, Matrix<T>& y, acc_t<T>* mean, acc_t<T>* rstd) const {
    return {.in = inputs(in), .b = in[2].ptr(), .eps = acc_t<T>(eps), .y = y, .mean = mean, .rstd = rstd};
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    run_op(op(in, y, nullptr, nullptr));
  }
  template <class T>
  Values backward(const Inputs<T>& in, const Matrix<T>& dy) const {
    Matrix<T> y(output());
    std::vector<acc_t<T>> mean(rows), rstd(rows);
    run_op(op(in, y, mean.data(), rstd.data()));
    const auto gradients = [&](bool weight, bool bias) -> Values {
      Matrix<T> dx({rows, cols, 2});
      auto dw = accumulator<T>({1, cols}), db = accumulator<T>({1, cols});
      const LayerNormBackward<T> back{.in = inputs(in),
                                      .mean = mean.data(),
                                      .rstd = rstd.data(),
                                      .dy = dy,
                                      .dx = dx,
                                      .dw = weight ? dw.ptr() : nullptr,
                                      .db = bias ? db.ptr() : nullptr};
      if (!weight && !bias) {
        EXPECT_EQ(workspace(Cpu{}, back), 0);
      }
      run_op(back);
      return {dx.values(), dw.values(kBefore), db.values(kBefore)};
    };
    // What is frozen changes nothing else.
    const Values all = gradients(true, true);
    const std::vector<double> none(cols, 0);
    for (const auto& [weight, bias] : {std::pair{true, false}, {false, true}, {false, false}})
      EXPECT_EQ(gradients(weight, bias), (Values{all[0], weight ? all[1] : none, bias ? all[2] : none}));
    return all;
  }
};

TEST(LayerNorm, Table) {
  for (int64_t rows : {0, 1, 3})
    for (int cols : {1, 7, 64, 100}) check_op(LayerNormCase{rows, cols});
  check_op(LayerNormCase{70, 5});  // several blocks of the two-stage sums
}
TEST(LayerNorm, SameBitsForAnyNumberOfThreads) { check_threads(LayerNormCase{333, 200}); }

// A mean far above the deviation: neither it nor the variance may lose what x still has. Forward is exact to
// the roundings of xhat; the backward's xhat is of the kept mean, rounded to float.
TEST(LayerNorm, MeanFarAboveDeviation) {
  struct {
    float mean;
    int values;  // mean + {0, 1, ..., values - 1}
    int cols;
  } const rows[] = {{1e4f, 2, 256}, {1e6f, 8, 4096}, {-1e6f, 8, 97}, {8e6f, 2, 5000}, {1e7f, 3, 100000}};
  for (const auto& row : rows) {
    const int n = row.cols;
    std::vector<float> x(n), w(n, 1), b(n, 0), dy(n), y(n), dx(n);
    std::mt19937 random(1);
    for (int c = 0; c < n; ++c) x[c] = row.mean + float(random() % row.values), dy[c] = float(c % 5) - 1.5f;
    float mean, rstd;
    const LayerNormInputs<float> in{.rows = 1, .cols = n, .x = {x.data(), n}, .w = w.data()};
    run_op(LayerNorm<float>{
        .in = in, .b = b.data(), .eps = 1e-5f, .y = {y.data(), n}, .mean = &mean, .rstd = &rstd});
    run_op(LayerNormBackward<float>{
        .in = in, .mean = &mean, .rstd = &rstd, .dy = {dy.data(), n}, .dx = {dx.data(), n}});
    const std::vector<double> xd(x.begin(), x.end()), one(n, 1), zero(n, 0), dyd(dy.begin(), dy.end());
    std::vector<double> want(n), want_dx(n);
    double exact_mean, exact_rstd;
    const LayerNormInputs<double> exact{.rows = 1, .cols = n, .x = {xd.data(), n}, .w = one.data()};
    run_op(LayerNorm<double>{.in = exact,
                             .b = zero.data(),
                             .eps = 1e-5,
                             .y = {want.data(), n},
                             .mean = &exact_mean,
                             .rstd = &exact_rstd});
    run_op(LayerNormBackward<double>{.in = exact,
                                     .mean = &exact_mean,
                                     .rstd = &exact_rstd,
                                     .dy = {dyd.data(), n},
                                     .dx = {want_dx.data(), n}});
    // xhat with the mean of float: off by half its unit, in deviations.
    const double off = std::fabs(exact_mean) * 0x1p-24 * exact_rstd;
    EXPECT_NEAR(rstd / exact_rstd, 1, 1e-6) << n;
    EXPECT_NEAR(mean, exact_mean, std::fabs(exact_mean) * 0x1p-24) << n;
    for (int c = 0; c < n; ++c) {
      ASSERT_NEAR(y[c], want[c], 4e-6) << c << " of " << n;
      ASSERT_NEAR(dx[c], want_dx[c], exact_rstd * (4 * off + 1e-5)) << c << " of " << n;
    }
  }
}

}  // namespace
}  // namespace mimo::op_test
