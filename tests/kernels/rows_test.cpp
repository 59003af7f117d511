#include "kernels/rows.h"

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

struct GatherCase {
  std::vector<int32_t> rows;
  int64_t total, cols;

  int64_t count() const { return static_cast<int64_t>(rows.size()); }
  std::vector<Shape> inputs() const { return {{total, cols, 2}}; }
  Shape output() const { return {count(), cols, 1}; }
  int64_t terms() const { return 1; }
  void reference(const Values& in, std::vector<double>& y) const {
    for (int64_t i = 0; i < count(); ++i)
      for (int64_t c = 0; c < cols; ++c) y[i * cols + c] = in[0][rows[i] * cols + c];
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    run_op(GatherRows<T>{.count = count(), .cols = cols, .rows = rows.data(), .x = in[0], .out = y});
  }
  template <class T>
  Values backward(const Inputs<T>&, const Matrix<T>& dy) const {
    Matrix<T> dx(inputs()[0], 0.0);
    run_op(ScatterAddRows<T>{.count = count(), .cols = cols, .rows = rows.data(), .x = dy, .out = dx});
    return {dx.values()};
  }
};

// out = base with the rows replaced by (or added to) x; a null x writes zeros.
struct ScatterCase {
  std::vector<int32_t> rows;
  int64_t total, cols;
  enum Kind { replace, add, zero } kind;

  int64_t count() const { return static_cast<int64_t>(rows.size()); }
  std::vector<Shape> inputs() const { return {{total, cols, 2}, {count(), cols, 1}}; }
  Shape output() const { return {total, cols, 2}; }
  int64_t terms() const { return 2; }
  void reference(const Values& in, std::vector<double>& y) const {
    y = in[0];
    for (int64_t i = 0; i < count(); ++i)
      for (int64_t c = 0; c < cols; ++c) {
        double& at = y[rows[i] * cols + c];
        at = kind == zero ? 0 : (kind == add ? at : 0) + in[1][i * cols + c];
      }
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    y = in[0];
    const mimo::Rows<const T> x = kind == zero ? mimo::Rows<const T>{} : in[1];
    if (kind == add)
      run_op(ScatterAddRows<T>{.count = count(), .cols = cols, .rows = rows.data(), .x = x, .out = y});
    else
      run_op(ScatterRows<T>{.count = count(), .cols = cols, .rows = rows.data(), .x = x, .out = y});
  }
  template <class T>
  Values backward(const Inputs<T>&, const Matrix<T>& dy) const {
    Matrix<T> dbase = dy, dx(inputs()[1], 0.0);
    if (kind != add)
      run_op(ScatterRows<T>{.count = count(), .cols = cols, .rows = rows.data(), .out = dbase});
    if (kind != zero)
      run_op(GatherRows<T>{.count = count(), .cols = cols, .rows = rows.data(), .x = dy, .out = dx});
    return {dbase.values(), dx.values()};
  }
};

TEST(Rows, Table) {
  for (const std::vector<int32_t>& rows : {std::vector<int32_t>{}, {4}, {5, 0, 3}, {5, 4, 3, 2, 1, 0}})
    for (int64_t cols : {1, 5, 40}) {
      check_op(GatherCase{rows, 6, cols});
      for (auto kind : {ScatterCase::replace, ScatterCase::add, ScatterCase::zero})
        check_op(ScatterCase{rows, 6, cols, kind});
    }
}

TEST(Rows, SameBitsForAnyNumberOfThreads) {
  std::vector<int32_t> rows(200);
  for (int i = 0; i < 200; ++i) rows[i] = i * 11 % 301;  // distinct: 301 is 7 times 43
  check_threads(GatherCase{rows, 301, 250});
  check_threads(ScatterCase{rows, 301, 250, ScatterCase::add});
}

}  // namespace
}  // namespace mimo::op_test
