#include "kernels/rope.h"

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

struct RopeCase {
  int64_t tokens;
  int heads, head_dim, rotary;
  double theta = 10000;

  std::vector<int32_t> positions() const {
    std::vector<int32_t> p(tokens);
    for (int64_t t = 0; t < tokens; ++t) p[t] = static_cast<int32_t>(t * 37 % 1000);
    return p;
  }
  std::vector<Shape> inputs() const { return {{tokens, heads * head_dim, 4}}; }
  Shape output() const { return {tokens, heads * head_dim, 2}; }
  int64_t terms() const { return 2; }
  void reference(const Values& in, std::vector<double>& y) const {
    const auto p = positions();
    for (int64_t t = 0; t < tokens; ++t)
      for (int h = 0; h < heads; ++h) {
        const int64_t at = (t * heads + h) * head_dim;
        for (int d = 0; d < head_dim; ++d) {
          const int half = rotary / 2, j = d % std::max(half, 1);
          const double angle = p[t] * std::pow(theta, -2.0 * j / rotary), x = in[0][at + d];
          const double other = d < half ? -in[0][at + d + half] : d < rotary ? in[0][at + d - half] : 0;
          y[at + d] = d < rotary ? x * std::cos(angle) + other * std::sin(angle) : x;
        }
      }
  }
  template <class T>
  void apply(const Matrix<T>& x, Matrix<T>& y, bool inverse) const {
    const auto p = positions();
    run_op(Rope<T>{tokens, heads, head_dim, rotary, theta, p.data(), inverse, x.ptr(), x.ld, y.ptr(), y.ld});
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    apply(in[0], y, false);
  }
  template <class T>
  Values backward(const Inputs<T>&, const Matrix<T>& dy) const {
    Matrix<T> dx(output());
    apply(dy, dx, true);
    return {dx.values()};
  }
};

TEST(Rope, Table) {
  for (int64_t tokens : {0, 1, 5})
    for (int rotary : {0, 2, 10, 16}) check_op(RopeCase{tokens, 3, 16, rotary});
  check_op(RopeCase{3, 2, 160, 160, 1e6});
}
TEST(Rope, SameBitsForAnyNumberOfThreads) { check_threads(RopeCase{333, 4, 64, 32}); }

}  // namespace
}  // namespace mimo::op_test
