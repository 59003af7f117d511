// Learning rates against closed forms worked out apart from them.
#include "parallel/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mimo {
namespace {

using Kind = Schedule::Kind;

// Steps 0 to 3 rise to lr, steps 4 to 12 fall: eight equal parts from 1 to 0.2.
TEST(LearningRate, IsThatByHand) {
  const auto at = [](Kind kind, int64_t step) { return learning_rate({kind, 1, 0.2, 4, 13}, step); };
  for (const Kind kind : {Kind::constant, Kind::linear, Kind::cosine}) {
    for (int64_t step = 0; step < 4; ++step) EXPECT_DOUBLE_EQ(at(kind, step), 0.25 * double(step + 1));
    EXPECT_DOUBLE_EQ(at(kind, 4), 1);
  }
  for (int64_t step = 4; step <= 13; ++step) EXPECT_DOUBLE_EQ(at(Kind::constant, step), 1);

  EXPECT_DOUBLE_EQ(at(Kind::linear, 5), 0.9);
  EXPECT_DOUBLE_EQ(at(Kind::linear, 6), 0.8);
  EXPECT_DOUBLE_EQ(at(Kind::linear, 8), 0.6);
  EXPECT_DOUBLE_EQ(at(Kind::linear, 11), 0.3);
  EXPECT_DOUBLE_EQ(at(Kind::linear, 12), 0.2);

  // 0.2 + 0.4 (1 + cos): of 45, 60 (of another length), 90, 135 and 180 degrees.
  EXPECT_DOUBLE_EQ(at(Kind::cosine, 6), 0.6 + 0.4 / std::sqrt(2.0));
  EXPECT_DOUBLE_EQ(learning_rate({Kind::cosine, 1, 0.2, 4, 8}, 5), 0.8);
  EXPECT_DOUBLE_EQ(at(Kind::cosine, 8), 0.6);
  EXPECT_DOUBLE_EQ(at(Kind::cosine, 10), 0.6 - 0.4 / std::sqrt(2.0));
  EXPECT_DOUBLE_EQ(at(Kind::cosine, 12), 0.2);

  for (const Kind kind : {Kind::linear, Kind::cosine}) {
    EXPECT_DOUBLE_EQ(at(kind, 13), 0.2) << "past the end";
    EXPECT_DOUBLE_EQ(learning_rate({kind, 3e-4, 0, 0, 11}, 0), 3e-4) << "no warmup";
    EXPECT_NEAR(learning_rate({kind, 3e-4, 0, 0, 11}, 10), 0, 1e-19);
  }
}

// Where nothing is left after the warmup, or it is never over.
TEST(LearningRate, OfRunsAsLongAsTheirWarmup) {
  for (const Kind kind : {Kind::constant, Kind::linear, Kind::cosine}) {
    EXPECT_DOUBLE_EQ(learning_rate({kind, 1, 0.5, 0, 1}, 0), 1);
    EXPECT_DOUBLE_EQ(learning_rate({kind, 1, 0.5, 4, 5}, 4), 1);
    EXPECT_DOUBLE_EQ(learning_rate({kind, 1, 0.5, 10, 5}, 4), 0.5);
  }
}

}  // namespace
}  // namespace mimo
