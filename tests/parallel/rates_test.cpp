// What messages cost.
#include "parallel/rates.h"

#include <gtest/gtest.h>

namespace mimo {
namespace {

constexpr double kFree = 1e300;

TEST(Rates, AnAllReduceCostsItsRoundsAndItsBytes) {
  const Traffic three{3, 3000};
  EXPECT_EQ(all_reduce_seconds(three, 1, {}), 0);
  EXPECT_EQ(all_reduce_seconds({}, 4, {}), 0);
  const Rates latency{.memory = kFree, .latency = 2, .bandwidth = kFree};
  EXPECT_DOUBLE_EQ(all_reduce_seconds(three, 2, latency), 3 * 2);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(three, 4, latency), 3 * 2);
  const Rates bandwidth{.memory = kFree, .latency = 0, .bandwidth = 100};
  EXPECT_DOUBLE_EQ(all_reduce_seconds(three, 2, bandwidth), 30);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(three, 4, bandwidth), 90);  // from each of three others
  const Rates memory{.memory = 100, .latency = 0, .bandwidth = kFree};
  EXPECT_DOUBLE_EQ(all_reduce_seconds(three, 2, memory), 90);  // reads two, writes one

  // Long ones among many go in two rounds and parts.
  const Traffic large{1, 4000000};
  EXPECT_DOUBLE_EQ(all_reduce_seconds(large, 4, latency), 2 * 2);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(large, 4, bandwidth), 2 * 3 * 1e6 / 100);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(large, 4, memory), 5 * 1e6 / 100);
}

TEST(Rates, AnEmptyBufferIsNoMessage) {
  Traffic t;
  t.add(0);
  t.add(8);
  EXPECT_EQ(t, (Traffic{1, 8}));
}

}  // namespace
}  // namespace mimo
