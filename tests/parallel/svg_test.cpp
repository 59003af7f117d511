#include "parallel/svg.h"

#include <gtest/gtest.h>

namespace mimo {
namespace {

TEST(Svg, TextIsEscaped) { EXPECT_EQ(escaped("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;"); }

TEST(Svg, TicksAreTheFinestRoundStepThatSuffices) {
  EXPECT_DOUBLE_EQ(tick(10, 5), 2);
  EXPECT_DOUBLE_EQ(tick(10.1, 5), 5);
  EXPECT_DOUBLE_EQ(tick(26, 5), 10);
  EXPECT_DOUBLE_EQ(tick(0.0012, 14), 0.0001);
  for (const double whole : {1e-9, 0.37, 1.0, 99.0, 12345.0})
    for (const double parts : {2.0, 5.0, 14.0}) {
      const double step = tick(whole, parts);
      EXPECT_LE(whole / step, parts * (1 + 1e-12));
      EXPECT_GT(whole / step, parts / 2.5 * (1 - 1e-12));
    }
}

}  // namespace
}  // namespace mimo
