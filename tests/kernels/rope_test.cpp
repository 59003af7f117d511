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
    run_op(Rope<T>{.tokens = tokens,
                   .heads = heads,
                   .head_dim = head_dim,
                   .rotary = rotary,
                   .theta = theta,
                   .positions = p.data(),
                   .inverse = inverse,
                   .x = x,
                   .y = y});
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
// A rotation keeps lengths, and its inverse undoes it, to rounding; y may be x.
TEST(Rope, InverseUndoesItInPlace) {
  const RopeCase op{5, 3, 16, 10};
  const auto v = random_values(5 * 48, 1);
  Matrix<double> x({5, 48, 4}, v);
  op.apply(x, x, false);
  const auto turned = x.values();
  EXPECT_NE(turned, v);
  for (int64_t head = 0; head < 15; ++head) {
    double before = 0, after = 0;
    for (int64_t i = head * 16; i < head * 16 + 16; ++i)
      before += v[i] * v[i], after += turned[i] * turned[i];
    EXPECT_NEAR(after, before, 32 * 0x1p-52 * before);
  }
  op.apply(x, x, true);
  expect_near<double>(x.values(), v, 4, "inverse of forward");
}

// The product of a turned query and a turned key depends on the distance of their positions alone.
TEST(Rope, ProductsDependOnDistance) {
  const int dim = 32;
  const auto v = random_values(2 * dim, 1);
  const auto product = [&](int32_t at_q, int32_t at_k) {
    const int32_t positions[] = {at_q, at_k};
    std::vector<double> y(2 * dim);
    run_op(Rope<double>{.tokens = 2,
                        .heads = 1,
                        .head_dim = dim,
                        .rotary = dim,
                        .theta = 10000,
                        .positions = positions,
                        .x = {v.data(), dim},
                        .y = {y.data(), dim}});
    double sum = 0;
    for (int d = 0; d < dim; ++d) sum += y[d] * y[dim + d];
    return sum;
  };
  // The angle of the first pair is the position, rounded to eps times it.
  for (int32_t shift : {1, 77, 100000})
    EXPECT_NEAR(product(9 + shift, 2 + shift), product(9, 2), 1e-15 * dim * (9 + shift));
}

// Far positions keep full accuracy: angles are taken in double also where the data is float.
TEST(Rope, FarPositions) {
  const float x[] = {1, 0};
  for (int32_t position : {1 << 20, 123456789, 2147483647}) {
    float y[2];
    run_op(Rope<float>{.tokens = 1,
                       .heads = 1,
                       .head_dim = 2,
                       .rotary = 2,
                       .theta = 10000,
                       .positions = &position,
                       .x = {x, 2},
                       .y = {y, 2}});
    EXPECT_NEAR(y[0], std::cos(double(position)), 0x1p-24);
    EXPECT_NEAR(y[1], std::sin(double(position)), 0x1p-24);
  }
}

TEST(Rope, SameBitsForAnyNumberOfThreads) { check_threads(RopeCase{333, 4, 64, 32}); }

}  // namespace
}  // namespace mimo::op_test
