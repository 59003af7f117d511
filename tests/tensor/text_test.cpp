#include "tensor/text.h"

#include <gtest/gtest.h>

#include <vector>

namespace mimo {
namespace {

using Strings = std::vector<std::string>;

TEST(Text, ListsCountsAndRanges) {
  EXPECT_EQ(joined({}), "");
  EXPECT_EQ(joined(Strings{"a"}), "a");
  EXPECT_EQ(joined(Strings{"a", "", "b"}), "a, , b");
  EXPECT_EQ(joined(Strings{"a", "b"}, ""), "ab");
  EXPECT_EQ(counted(0, "rank"), "0 ranks");
  EXPECT_EQ(counted(1, "rank"), "1 rank");
  EXPECT_EQ(counted(-2, "rank"), "-2 ranks");
  EXPECT_EQ(ranges({}), "");
  EXPECT_EQ(ranges(std::vector<int>{7}), "7");
  EXPECT_EQ(ranges(std::vector<int>{0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
}

TEST(Text, NearestIsTheWordThatWasMeantOrNone) {
  const Strings words = {"train.steps", "train.seed", "eval.every"};
  EXPECT_EQ(nearest("train.stpes", words), "train.steps");
  EXPECT_EQ(nearest("train.sed", words), "train.seed");
  EXPECT_EQ(nearest("completely-different-thing", words), "");
  EXPECT_EQ(nearest("", words), "");
  EXPECT_EQ(did_you_mean(nearest("train.stpes", words)), "did you mean train.steps?");
  EXPECT_EQ(did_you_mean(nearest("", words)), "");
  EXPECT_EQ(did_you_mean("", "see --help"), "see --help");
}

}  // namespace
}  // namespace mimo
