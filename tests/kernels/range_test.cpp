// The ends of float's range: what is finite in double (and fits in float) is finite in float too, and right.
#include <cmath>

#include "kernels/kernels.h"
#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

constexpr float kMost = std::numeric_limits<float>::max();
const std::vector<float> kEnds{-kMost,  -3e38f,  -1e30f, -2e19f, -1e10f, -104.f, -20.f,
                               -1e-38f, -1e-45f, 0,      1e-45f, 1e-38f, 1,      20.f,
                               104.f,   1e10f,   2e19f,  1e30f,  3e38f,  kMost};

std::vector<double> to_double(const std::vector<float>& v) { return {v.begin(), v.end()}; }

// tolerance: relative to the value, or to `unit` where that is larger.
void expect_same(const std::vector<float>& have, const std::vector<double>& want, double unit,
                 const std::string& what) {
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::fabs(want[i]) > double(kMost)) continue;
    EXPECT_NEAR(have[i], want[i], 2e-5 * std::max(std::fabs(want[i]), unit)) << what << " " << i;
  }
}

// Rows of large elements, of small ones, of one large one, all equal.
std::vector<std::vector<float>> rows() {
  std::vector<std::vector<float>> all{kEnds};
  for (float scale : {kMost, 1e38f, 1e20f, 1e-20f, 1e-38f}) {
    std::vector<float> v;
    for (int i = 0; i < 40; ++i) v.push_back(scale * std::sin(float(i)));
    all.push_back(v);
    v.assign(30, 1), v[7] = -scale;
    all.push_back(v);
    all.push_back(std::vector<float>(50, scale));
  }
  return all;
}

// Calls f(x, w, dy) for every row, in float and in double, and compares the results it gives, each to the
// roundings of its largest element; `cancels`: the size of the terms that leave little in the last but one.
template <class F>
void check_rows(const char* what, const F& f, double cancels = 0) {
  int row = 0;
  for (const std::vector<float>& x : rows()) {
    std::vector<float> w, dy;
    for (size_t i = 0; i < x.size(); ++i)
      w.push_back(1.5f - float(i % 3)), dy.push_back(float(i % 4) - 1.75f);
    const auto have = f(x, w, dy);
    const auto want = f(to_double(x), to_double(w), to_double(dy));
    for (size_t r = 0; r < want.size(); ++r)
      expect_same(have[r], want[r], std::max({max_abs(want[r]), 1e-30, r + 2 == want.size() ? cancels : 0}),
                  std::string(what) + ", row " + std::to_string(row) + ", result " + std::to_string(r));
    ++row;
  }
}

TEST(Range, RmsNorm) {
  check_rows("rms norm",
             []<class T>(const std::vector<T>& x, const std::vector<T>& w, const std::vector<T>& dy) {
               const int n = int(x.size());
               std::vector<T> y(n), dx(n), dw(n), r(1);
               const RmsNormInputs<T> in{.rows = 1, .cols = n, .x = {x.data(), n}, .w = w.data()};
               run_op(RmsNorm<T>{.in = in, .eps = T(1e-5f), .y = {y.data(), n}, .r = r.data()});
               run_op(RmsNormBackward<T>{
                   .in = in, .r = r.data(), .dy = {dy.data(), n}, .dx = {dx.data(), n}, .dw = dw.data()});
               return std::vector<std::vector<T>>{y, dx, dw};
             });
}

TEST(Range, LayerNorm) {
  check_rows("layer norm",
             []<class T>(const std::vector<T>& x, const std::vector<T>& w, const std::vector<T>& dy) {
               const int n = int(x.size());
               std::vector<T> y(n), dx(n), dw(n), db(n), mean(1), rstd(1);
               const LayerNormInputs<T> in{.rows = 1, .cols = n, .x = {x.data(), n}, .w = w.data()};
               run_op(LayerNorm<T>{.in = in,
                                   .b = w.data(),
                                   .eps = T(1e-5f),
                                   .y = {y.data(), n},
                                   .mean = mean.data(),
                                   .rstd = rstd.data()});
               // Equal elements leave nothing but the rounding of their mean, in units of eps.
               if (x == std::vector<T>(n, x[0])) return std::vector<std::vector<T>>{y};
               run_op(LayerNormBackward<T>{.in = in,
                                           .mean = mean.data(),
                                           .rstd = rstd.data(),
                                           .dy = {dy.data(), n},
                                           .dx = {dx.data(), n},
                                           .dw = dw.data(),
                                           .db = db.data()});
               return std::vector<std::vector<T>>{y, dx, dw, db};
             });
}

TEST(Range, GatedNorm) {
  for (const double gate : {1.5, 1e-20, -3.0})
    check_rows(
        "gated norm",
        [gate]<class T>(const std::vector<T>& x, const std::vector<T>& w, const std::vector<T>& dy) {
          const int n = int(x.size());
          const std::vector<T> z(n, T(float(gate)));
          std::vector<T> y(n), dx(n), dz(n), dw(n), r(1);
          const GatedNormInputs<T> in{
              .rows = 1, .cols = n, .groups = 1, .y = {x.data(), n}, .z = {z.data(), n}, .w = w.data()};
          run_op(GatedNorm<T>{.in = in, .eps = T(1e-5f), .out = {y.data(), n}, .r = r.data()});
          run_op(GatedNormBackward<T>{.in = in,
                                      .r = r.data(),
                                      .dout = {dy.data(), n},
                                      .dy = {dx.data(), n},
                                      .dz = {dz.data(), n},
                                      .dw = dw.data()});
          return std::vector<std::vector<T>>{y, dx, dz, dw};
        },
        10 / std::fabs(gate / (1 + std::exp(-gate))));  // of dz: y r = xhat / silu(z)
}

TEST(Range, Activations) {
  for (const auto kind : {ActivationKind::relu2, ActivationKind::gelu_erf, ActivationKind::gelu_tanh,
                          ActivationKind::quick_gelu, ActivationKind::silu}) {
    const auto f = [kind]<class T>(const std::vector<T>& x) {
      const auto n = int64_t(x.size());
      const std::vector<T> dy(n, T(0.75));
      std::vector<T> y(n), dx(n);
      const ActivationInputs<T> in{.kind = kind, .rows = 1, .cols = n, .x = {x.data(), n}};
      run_op(Activation<T>{.in = in, .y = {y.data(), n}});
      run_op(ActivationBackward<T>{.in = in, .dy = {dy.data(), n}, .dx = {dx.data(), n}});
      return std::vector<std::vector<T>>{y, dx};
    };
    const auto have = f(kEnds);
    const auto want = f(to_double(kEnds));
    for (size_t r = 0; r < 2; ++r)
      expect_same(have[r], want[r], 1e-33,
                  "kind " + std::to_string(int(kind)) + ", result " + std::to_string(r));
  }
}

// Every end as gate, with large and small values beside it; silu is 0 where it is below the normal numbers.
TEST(Range, SwiGlu) {
  for (const float up : {1e30f, -3.f, 1e-30f}) {
    const auto f = [up]<class T>(const std::vector<T>& gate) {
      const auto n = int64_t(gate.size());
      std::vector<T> x = gate, dy(n, T(up)), y(n), dx(2 * n);
      x.resize(2 * n, T(up));
      const SwiGluInputs<T> in{.rows = 1, .cols = n, .x = {x.data(), 2 * n}};
      run_op(SwiGlu<T>{.in = in, .y = {y.data(), n}});
      run_op(SwiGluBackward<T>{.in = in, .dy = {dy.data(), n}, .dx = {dx.data(), 2 * n}});
      return std::vector<std::vector<T>>{y, dx};
    };
    const auto have = f(kEnds);
    const auto want = f(to_double(kEnds));
    for (size_t r = 0; r < 2; ++r)
      expect_same(have[r], want[r], 1e-31 * std::max(1.0, double(up) * double(up)),
                  "up " + std::to_string(up) + ", result " + std::to_string(r));
  }
}

}  // namespace
}  // namespace mimo::op_test
