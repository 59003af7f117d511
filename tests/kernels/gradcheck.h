// Gradients against central differences in double.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

namespace mimo::op_test {

// Checks gradient[i] = d functional / d value[i] for every i. functional reads value, which is restored.
// The four-point formula is off by h^4 / 30 = 2e-15 fifth derivatives and by 1.5 eps / h = 7e-13 times the
// value, so 1e-8 leaves room for sums of up to 10^4 and for strong curvature.
inline void check_gradient(const std::function<double()>& functional, std::vector<double>& value,
                           const std::vector<double>& gradient, const char* what) {
  ASSERT_EQ(value.size(), gradient.size()) << what;
  constexpr double h = 0x1p-11;
  for (size_t i = 0; i < value.size(); ++i) {
    const double at = value[i];
    const auto slope = [&](double step) {
      value[i] = at + step;
      const double right = functional();
      value[i] = at - step;
      return (right - functional()) / (2 * step);
    };
    const double want = (4 * slope(h) - slope(2 * h)) / 3;
    value[i] = at;
    ASSERT_NEAR(gradient[i], want, 1e-8 * std::max(1.0, std::fabs(want))) << what << "[" << i << "]";
  }
}

}  // namespace mimo::op_test
