#include "kernels/rms_norm.h"

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

struct RmsNormCase {
  int64_t rows;
  int cols;
  double eps = 0.1;  // large, so that a row of one small element is smooth too

  std::vector<Shape> inputs() const { return {{rows, cols, 5}, {1, cols}}; }
  Shape output() const { return {rows, cols, 3}; }
  int64_t terms() const { return std::max<int64_t>(rows, cols); }

  void reference(const Values& in, std::vector<double>& y) const {
    for (int64_t i = 0; i < rows; ++i) {
      double mean = 0;
      for (int c = 0; c < cols; ++c) mean += in[0][i * cols + c] * in[0][i * cols + c] / cols;
      for (int c = 0; c < cols; ++c) y[i * cols + c] = in[1][c] * in[0][i * cols + c] / std::sqrt(mean + eps);
    }
  }
  template <class T>
  RmsNormInputs<T> inputs(const Inputs<T>& in) const {
    return {.rows = rows, .cols = cols, .x = in[0], .w = in[1].ptr()};
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    run_op(RmsNorm<T>{.in = inputs(in), .eps = acc_t<T>(eps), .y = y});
  }
  template <class T>
  Values backward(const Inputs<T>& in, const Matrix<T>& dy) const {
    Matrix<T> y(output()), dx({rows, cols, 2});
    std::vector<acc_t<T>> r(rows);
    run_op(RmsNorm<T>{.in = inputs(in), .eps = acc_t<T>(eps), .y = y, .r = r.data()});
    auto dw = accumulator<T>({1, cols});
    RmsNormBackward<T> op{.in = inputs(in), .r = r.data(), .dy = dy, .dx = dx, .dw = dw.ptr()};
    run_op(op);
    // Frozen weights change nothing else.
    Matrix<T> dx_frozen({rows, cols, 2});
    op.dx = dx_frozen, op.dw = nullptr;
    EXPECT_EQ(workspace(Cpu{}, op), 0);
    run_op(op);
    EXPECT_EQ(dx_frozen.values(), dx.values());
    return {dx.values(), dw.values(kBefore)};
  }
};

TEST(RmsNorm, Table) {
  for (int64_t rows : {0, 1, 3})
    for (int cols : {1, 7, 64, 100}) check_op(RmsNormCase{rows, cols});
  check_op(RmsNormCase{70, 5});  // several blocks of the two-stage sums
}
TEST(RmsNorm, SameBitsForAnyNumberOfThreads) { check_threads(RmsNormCase{333, 200}); }

}  // namespace
}  // namespace mimo::op_test
