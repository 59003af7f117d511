#include "kernels/elementwise.h"

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

struct AddCase {
  int64_t rows, cols, pad;

  std::vector<Shape> inputs() const { return {{rows, cols, pad}, {rows, cols, 2 * pad}}; }
  Shape output() const { return {rows, cols, pad}; }
  int64_t terms() const { return 2; }
  void reference(const Values& in, std::vector<double>& y) const {
    for (size_t i = 0; i < y.size(); ++i) y[i] = in[0][i] + in[1][i];
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    run_op(Add<T>{.rows = rows, .cols = cols, .a = in[0], .b = in[1], .y = y});
    Matrix<T> a = in[0], b = in[1];  // y may be a or b
    run_op(Add<T>{.rows = rows, .cols = cols, .a = a, .b = b, .y = a});
    EXPECT_EQ(a.values(), y.values());
    a = in[0];
    run_op(Add<T>{.rows = rows, .cols = cols, .a = a, .b = b, .y = b});
    EXPECT_EQ(b.values(), y.values());
  }
  template <class T>
  Values backward(const Inputs<T>&, const Matrix<T>& dy) const {  // both gradients are dy
    Matrix<T> copy({rows, cols, 5});
    run_op(Copy<T>{.rows = rows, .cols = cols, .x = dy, .y = copy});
    return {copy.values(), copy.values()};
  }
};

// x + bias: the gradient of the bias is AddColumnSums.
struct BiasCase {
  int64_t rows;
  int cols;

  std::vector<Shape> inputs() const { return {{1, cols}}; }
  Shape output() const { return {rows, cols, 3}; }
  int64_t terms() const { return rows; }
  void reference(const Values& in, std::vector<double>& y) const {
    for (int64_t i = 0; i < rows; ++i)
      for (int c = 0; c < cols; ++c) y[i * cols + c] = in[0][c];
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    run_op(Copy<T>{
        .rows = rows, .cols = cols, .x = {in[0].ptr(), 0}, .y = y});  // a row stride of 0 repeats the row
  }
  template <class T>
  Values backward(const Inputs<T>&, const Matrix<T>& dy) const {
    auto db = accumulator<T>({1, cols});
    run_op(AddColumnSums<T>{.rows = rows, .cols = cols, .x = dy, .y = db.ptr()});
    return {db.values(kBefore)};
  }
};

TEST(Elementwise, Table) {
  for (int64_t rows : {0, 1, 5})
    for (int64_t cols : {0, 1, 33})
      for (int64_t pad : {0, 2}) check_op(AddCase{rows, cols, pad});
}
TEST(AddColumnSums, Table) {
  for (int64_t rows : {0, 1, 5, 70})
    for (int cols : {1, 33}) check_op(BiasCase{rows, cols});
}
TEST(Elementwise, SameBitsForAnyNumberOfThreads) {
  check_threads(AddCase{333, 200, 0});
  check_threads(BiasCase{2500, 300});
}

TEST(Elementwise, AColumnSumOfManyRows) {  // more than one row a block
  const int64_t rows = 5000;
  const auto v = random_values(rows * 3, 1);
  const Matrix<float> x({rows, 3}, v);
  float sum[3] = {1, 2, 3};
  run_op(AddColumnSums<float>{.rows = rows, .cols = 3, .x = x, .y = sum});
  for (int c = 0; c < 3; ++c) {
    double want = c + 1;
    for (int64_t i = 0; i < rows; ++i) want += v[i * 3 + c];
    EXPECT_EQ(sum[c], want);  // multiples of 1/128 below 2^16: exact
  }
}

template <class T>
void check_rest() {
  for (int64_t n : {0, 1, 70, 9000}) {
    const auto v = random_values(n, 4);
    Matrix<T> x({1, n}, v);
    const double factor = 0.3;
    run_op(Scale<T>{.n = n, .x = x.ptr(), .factor = &factor});
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(double(x(0, i)), double(T(acc_t<T>(v[i]) * acc_t<T>(factor))));

    std::vector<acc_t<T>> y(n, acc_t<T>(3));
    x = Matrix<T>({1, n}, v);
    run_op(ToAcc<T>{.n = n, .x = x.ptr(), .y = y.data(), .accumulate = true});
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(double(y[i]), v[i] + 3);
    run_op(ToAcc<T>{.n = n, .x = x.ptr(), .y = y.data()});
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(double(y[i]), v[i]);
    for (auto& u : y) u *= acc_t<T>(1.001);
    run_op(FromAcc<T>{.n = n, .x = y.data(), .y = x.ptr()});
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(double(x(0, i)), double(T(y[i])));
  }
  for (int64_t pad : {0, 3}) {
    Matrix<T> y({4, 7, pad});
    run_op(Fill<T>{.rows = 4, .cols = 7, .y = y, .value = acc_t<T>(0.75)});
    EXPECT_EQ(y.values(), std::vector<double>(28, 0.75));
  }
}
TEST(Elementwise, ScaleAndCastsAndFill) {
  check_rest<float>();
  check_rest<bf16>();
  check_rest<double>();
}

}  // namespace
}  // namespace mimo::op_test
