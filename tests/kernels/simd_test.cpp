#include "kernels/cpu/simd.h"

#include <gtest/gtest.h>

#include <vector>

namespace mimo {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

// Error in units of the last place of the float nearest to `exact`.
double ulps(float got, double exact) {
  const float nearest = static_cast<float>(exact);
  const double unit = std::max<double>(std::nextafter(std::abs(nearest), inf) - std::abs(nearest), 0x1p-149);
  return std::abs(got - exact) / unit;
}

// Largest error of f over n points of [lo, hi], computed in a loop that the compiler vectorises.
template <class F, class G>
double worst(double lo, double hi, F f, G exact) {
  constexpr int n = 200003;
  std::vector<float> x(n), y(n);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(lo + (hi - lo) * i / (n - 1));
#pragma omp simd
  for (int i = 0; i < n; ++i) y[i] = f(x[i]);
  double w = 0;
  for (int i = 0; i < n; ++i) w = std::max(w, ulps(y[i], exact(static_cast<double>(x[i]))));
  return w;
}

TEST(Simd, ExpIsAccurate) {
  const auto f = [](float x) { return fast_exp(x); };
  const auto exact = [](double x) { return std::exp(x); };
  EXPECT_LT(worst(-87.336, 88.7228, f, exact), 1.2);
  EXPECT_LT(worst(-1, 1, f, exact), 1.2);
  EXPECT_LT(worst(-1e-6, 1e-6, f, exact), 1.2);
}

TEST(Simd, ExpAtTheEdges) {
  EXPECT_EQ(fast_exp(0.f), 1.f);
  EXPECT_EQ(fast_exp(-0.f), 1.f);
  for (const float x : {-inf, -1e30f, -1000.f, -104.f, -87.34f}) EXPECT_EQ(fast_exp(x), 0.f) << x;
  for (const float x : {inf, 1e30f, 1000.f, 88.73f}) EXPECT_EQ(fast_exp(x), inf) << x;
  EXPECT_TRUE(std::isfinite(fast_exp(88.7228f)));
  EXPECT_GT(fast_exp(-87.3365f), 0.f);
  EXPECT_TRUE(std::isnan(fast_exp(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_EQ(fast_exp(-std::numeric_limits<double>::infinity()), 0.0);
}

TEST(Simd, SigmoidAndTanh) {
  const auto s = [](float x) { return sigmoid(x); };
  EXPECT_LT(worst(-87, 87, s, [](double x) { return 1 / (1 + std::exp(-x)); }), 3.0);
  const auto t = [](float x) { return fast_tanh(x); };
  const auto exact = [](double x) { return std::tanh(x); };
  EXPECT_LT(worst(-12, 12, t, exact), 3.0);
  EXPECT_LT(worst(-1e-3, 1e-3, t, exact), 1.2);
  EXPECT_EQ(sigmoid(-inf), 0.f);
  EXPECT_EQ(sigmoid(inf), 1.f);
  EXPECT_EQ(fast_tanh(-inf), -1.f);
  EXPECT_EQ(fast_tanh(inf), 1.f);
}

TEST(Simd, UnalignedVectors) {
  std::vector<float> x(lanes<float> + 1), y(lanes<float> + 1);
  for (int i = 0; i <= lanes<float>; ++i) x[i] = 0.37f * i - 3;
  store(y.data() + 1, fast_exp(load(x.data() + 1)));
  for (int i = 1; i <= lanes<float>; ++i) EXPECT_LT(ulps(y[i], std::exp(static_cast<double>(x[i]))), 1.0);
}

}  // namespace
}  // namespace mimo
