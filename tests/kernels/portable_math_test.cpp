#include "kernels/portable/math.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace mimo::op_test {
namespace {

double ulps(double got, long double want) {
  const double nearest = std::fabs(static_cast<double>(want));
  const double unit = std::nextafter(nearest, std::numeric_limits<double>::infinity()) - nearest;
  return static_cast<double>(std::fabs(got - want)) / unit;
}

TEST(PortableMath, Log) {
  std::mt19937_64 engine(1);
  std::uniform_real_distribution<double> exponent(-700, 700), near(-1e-3, 1e-3);
  double worst = 0;
  for (int i = 0; i < 100000; ++i)
    for (double x : {std::exp(exponent(engine)), 1 + near(engine), (double(engine() >> 32) + 0.5) * 0x1p-32})
      worst = std::max(worst, ulps(portable_log(x), std::log(static_cast<long double>(x))));
  EXPECT_EQ(portable_log(1), 0);
  EXPECT_LE(worst, 2);
}

TEST(PortableMath, SinCos) {
  std::mt19937_64 engine(2);
  double worst = 0;
  for (double limit : {1.0, 100.0, 1e6, 2147483648.0}) {
    std::uniform_real_distribution<double> angle(-limit, limit);
    for (int i = 0; i < 50000; ++i) {
      const double x = angle(engine);
      const SinCos v = sin_cos(x);
      worst = std::max(worst, ulps(v.sin, std::sin(static_cast<long double>(x))));
      worst = std::max(worst, ulps(v.cos, std::cos(static_cast<long double>(x))));
    }
  }
  EXPECT_EQ(sin_cos(0).sin, 0);
  EXPECT_EQ(sin_cos(0).cos, 1);
  EXPECT_LE(worst, 2);
}

}  // namespace
}  // namespace mimo::op_test
