#include "kernels/layer_norm.h"

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
  LayerNorm<T> op(const Inputs<T>& in, Matrix<T>& y, acc_t<T>* mean, acc_t<T>* rstd) const {
    return {rows,          cols,    in[0].ptr(), in[0].ld, in[1].ptr(), in[2].ptr(),
            acc_t<T>(eps), y.ptr(), y.ld,        mean,     rstd};
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    run_op(op(in, y, nullptr, nullptr));
  }
  template <class T>
  Values backward(const Inputs<T>& in, const Matrix<T>& dy) const {
    Matrix<T> y(output()), dx({rows, cols, 2});
    std::vector<acc_t<T>> mean(rows), rstd(rows);
    run_op(op(in, y, mean.data(), rstd.data()));
    auto dw = accumulator<T>({1, cols}), db = accumulator<T>({1, cols});
    LayerNormBackward<T> back{rows,     cols,  in[0].ptr(), in[0].ld, in[1].ptr(), mean.data(), rstd.data(),
                              dy.ptr(), dy.ld, dx.ptr(),    dx.ld,    dw.ptr(),    db.ptr()};
    run_op(back);
    Matrix<T> dx_frozen({rows, cols, 2});
    back.dx = dx_frozen.ptr(), back.dw = back.db = nullptr;
    EXPECT_EQ(workspace(Cpu{}, back), 0);
    run_op(back);
    EXPECT_EQ(dx_frozen.values(), dx.values());
    return {dx.values(), dw.values(kBefore), db.values(kBefore)};
  }
};

TEST(LayerNorm, Table) {
  for (int64_t rows : {0, 1, 3})
    for (int cols : {1, 7, 64, 100}) check_op(LayerNormCase{rows, cols});
  check_op(LayerNormCase{70, 5});  // several blocks of the two-stage sums
}
TEST(LayerNorm, SameBitsForAnyNumberOfThreads) { check_threads(LayerNormCase{333, 200}); }

// The variance does not cancel where the mean is large: a row of 10^4 and 10^4 + 1 has variance 1/4.
TEST(LayerNorm, LargeMean) {
  const int cols = 256;
  std::vector<float> x(cols), w(cols, 1), b(cols, 0), y(cols);
  for (int c = 0; c < cols; ++c) x[c] = 1e4f + float(c % 2);
  run_op(
      LayerNorm<float>{1, cols, x.data(), cols, w.data(), b.data(), 0.f, y.data(), cols, nullptr, nullptr});
  for (int c = 0; c < cols; ++c)
    EXPECT_NEAR(y[c], c % 2 ? 1 : -1, 1e-2);  // the mean itself is off by 1e4 eps
}

}  // namespace
}  // namespace mimo::op_test
