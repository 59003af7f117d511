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
    run_op(Activation<T>{kind, rows, cols, in[0].ptr(), in[0].ld, y.ptr(), y.ld});
  }
  template <class T>
  Values backward(const Inputs<T>& in, const Matrix<T>& dy) const {
    Matrix<T> dx({rows, cols, pad});
    run_op(ActivationBackward<T>{kind, rows, cols, in[0].ptr(), in[0].ld, dy.ptr(), dy.ld, dx.ptr(), dx.ld});
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
    run_op(SwiGlu<T>{rows, cols, in[0].ptr(), in[0].ld, y.ptr(), y.ld});
  }
  template <class T>
  Values backward(const Inputs<T>& in, const Matrix<T>& dy) const {
    Matrix<T> dx({rows, 2 * cols, 3});
    run_op(SwiGluBackward<T>{rows, cols, in[0].ptr(), in[0].ld, dy.ptr(), dy.ld, dx.ptr(), dx.ld});
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
TEST(Activation, SameBitsForAnyNumberOfThreads) {
  for (ActivationKind kind : kKinds) check_threads(ActivationCase{kind, 333, 200, 0});
  check_threads(SwiGluCase{333, 100});
}

}  // namespace
}  // namespace mimo::op_test
