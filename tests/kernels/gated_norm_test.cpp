#include "kernels/gated_norm.h"

#include "tests/kernels/scan_testing.h"

namespace mimo {
namespace {

using namespace mimo::testing;

struct Problem {
  int64_t rows;
  int cols, groups;
  double eps = 1e-5;
  Values y, z, w, dout;
  Problem(int64_t n, int c, int g) : rows(n), cols(c), groups(g) {
    std::mt19937 rng(5);
    y = random_values(n * c, rng, -2, 2);
    z = random_values(n * c, rng, -4, 4);
    w = random_values(c, rng);
    dout = random_values(n * c, rng);
  }
};

struct Result {
  Values out, dy, dz, dw;
  std::vector<std::pair<std::string, const Values*>> all() const {
    return {{"out", &out}, {"dy", &dy}, {"dz", &dz}, {"dw", &dw}};
  }
};

template <class R>
Result reference(const Problem& q) {
  const int n = q.cols / q.groups;
  std::vector<R> out(q.y.size()), dy(q.y.size()), dz(q.y.size()), dw(q.cols);
  for (int64_t i = 0; i < q.rows; ++i)
    for (int g = 0; g < q.groups; ++g) {
      const int64_t at = i * q.cols + g * n;
      R squares = 0, c = 0;
      std::vector<R> u(n), s(n);
      for (int k = 0; k < n; ++k) {
        s[k] = 1 / (1 + std::exp(-R(q.z[at + k])));
        u[k] = R(q.y[at + k]) * R(q.z[at + k]) * s[k];
        squares += u[k] * u[k];
      }
      const R r = 1 / std::sqrt(squares / n + R(q.eps));
      for (int k = 0; k < n; ++k) {
        const R w = R(q.w[g * n + k]), d = R(q.dout[at + k]);
        out[at + k] = w * u[k] * r;
        dw[g * n + k] += d * u[k] * r;
        c += u[k] * r * w * d / n;
      }
      for (int k = 0; k < n; ++k) {
        const R y = R(q.y[at + k]), z = R(q.z[at + k]);
        const R du = r * (R(q.w[g * n + k]) * R(q.dout[at + k]) - u[k] * r * c);
        dy[at + k] = du * z * s[k];
        dz[at + k] = du * y * s[k] * (1 + z * (1 - s[k]));
      }
    }
  return {from(out), from(dy), from(dz), from(dw)};
}

template <class T>
Result kernel(const Problem& q) {
  using A = acc_t<T>;
  const Matrix<T> y(q.rows, q.cols, q.y), z(q.rows, q.cols, q.z, 11), dout(q.rows, q.cols, q.dout);
  Matrix<T> out(q.rows, q.cols), dy(q.rows, q.cols), dz(q.rows, q.cols, 3);
  const auto w = to<T>(q.w);
  std::vector<A> r(q.rows * q.groups, A(NAN)), dw(q.cols, A(1));
  const GatedNormInputs<T> in{
      .rows = q.rows, .cols = q.cols, .groups = q.groups, .y = y, .z = z, .w = w.data()};
  run(Cpu{}, GatedNorm<T>{.in = in, .eps = A(q.eps), .out = out, .r = r.data()});
  run_op(GatedNormBackward<T>{.in = in, .r = r.data(), .dout = dout, .dy = dy, .dz = dz, .dw = dw.data()});
  Result result{out.values(), dy.values(), dz.values(), from(dw)};
  for (double& g : result.dw) g -= 1;
  return result;
}

TEST(GatedNorm, IsTheFormula) {
  for (const auto& [rows, cols, groups] :
       {std::tuple{0, 8, 2}, {1, 1, 1}, {3, 12, 4}, {70, 48, 1}, {65, 66, 2}}) {
    const Problem q(rows, cols, groups);
    const Result got = kernel<double>(q), want = reference<double>(q);
    for (size_t i = 0; i < got.all().size(); ++i)
      expect_close(*got.all()[i].second, *want.all()[i].second, 1e-13, want.all()[i].first);
  }
}

TEST(GatedNorm, GradientsAreCentralDifferences) {
  Problem q(4, 12, 3);
  const Result r = kernel<double>(q);
  const auto loss = [&] { return inner(reference<double>(q).out, q.dout); };
  expect_close(r.dy, central_differences(q.y, loss), 1e-8, "dy");
  expect_close(r.dz, central_differences(q.z, loss), 1e-8, "dz");
  expect_close(r.dw, central_differences(q.w, loss), 1e-8, "dw");
}

template <class T>
void expect_as_good_as_plain() {
  Problem q(150, 96, 2);
  for (Values* v : {&q.y, &q.z, &q.w, &q.dout}) *v = rounded<T>(*v);
  const Result exact = reference<double>(q), got = kernel<T>(q);
  Result plain = reference<float>(q);
  for (Values* v : {&plain.out, &plain.dy, &plain.dz}) *v = rounded<T>(*v);
  for (size_t i = 0; i < exact.all().size(); ++i)
    expect_as_good_as(*plain.all()[i].second, *got.all()[i].second, *exact.all()[i].second, epsilon<float>,
                      exact.all()[i].first);
}
TEST(GatedNorm, FloatIsAsGoodAsPlain) { expect_as_good_as_plain<float>(); }
TEST(GatedNorm, Bf16IsAsGoodAsPlain) { expect_as_good_as_plain<bf16>(); }

TEST(GatedNorm, ExtremeGatesStayFinite) {
  Problem q(2, 8, 1);
  for (size_t i = 0; i < q.z.size(); ++i) q.z[i] = i % 2 ? 200 : -200;
  const Result r = kernel<float>(q);
  for (const auto& [name, v] : r.all()) EXPECT_LT(max_abs(*v), 1e6) << name;
}

TEST(GatedNorm, DoesNotDependOnThreads) {
  const Problem q(500, 256, 4);
  Result results[2];
  for (const int n : {1, 2}) {
    Threads threads(n);
    results[n - 1] = kernel<float>(q);
  }
  for (size_t i = 0; i < results[0].all().size(); ++i)
    expect_same_bits(*results[1].all()[i].second, *results[0].all()[i].second, results[0].all()[i].first);
}

TEST(GatedNorm, RefusesGroupsThatDoNotDivide) {
  GatedNorm<float> op{};
  op.in.cols = 10, op.in.groups = 3;
  EXPECT_THROW(run(Cpu{}, op), std::invalid_argument);
}

}  // namespace
}  // namespace mimo
