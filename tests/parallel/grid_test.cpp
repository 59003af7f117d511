#include "parallel/grid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace mimo {
namespace {

using Groups = std::vector<Ranks>;

TEST(Grid, RanksHaveNames) {
  EXPECT_EQ(to_string(Ranks{3}), "rank 3");
  EXPECT_EQ(to_string(Ranks{0, 1, 2, 5}), "ranks 0-2,5");
  EXPECT_EQ(consecutive(2, 5), (Ranks{2, 3, 4}));
}

TEST(Grid, GroupsOfTwoByTwoByTwo) {
  const Grid g{.offset = 0, .tp = 2, .dp = 2, .pp = 2};
  EXPECT_EQ(g.groups({Axis::tp}), (Groups{{0, 1}, {2, 3}, {4, 5}, {6, 7}}));
  EXPECT_EQ(g.groups({Axis::dp}), (Groups{{0, 2}, {1, 3}, {4, 6}, {5, 7}}));
  EXPECT_EQ(g.groups({Axis::pp}), (Groups{{0, 4}, {1, 5}, {2, 6}, {3, 7}}));
  EXPECT_EQ(g.groups({Axis::tp, Axis::dp}), (Groups{{0, 1, 2, 3}, {4, 5, 6, 7}}));
  EXPECT_EQ(g.groups({Axis::dp, Axis::tp}), g.groups({Axis::tp, Axis::dp}));
  EXPECT_EQ(g.groups({Axis::tp, Axis::pp}), (Groups{{0, 1, 4, 5}, {2, 3, 6, 7}}));
  EXPECT_EQ(g.groups({}), (Groups{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}}));
}

TEST(Grid, OffsetShiftsEveryRank) {
  const Grid g{.offset = 5, .tp = 2, .dp = 1, .pp = 3};
  EXPECT_EQ(g.size(), 6);
  EXPECT_EQ(g.end(), 11);
  EXPECT_EQ(g.groups({Axis::pp}), (Groups{{5, 7, 9}, {6, 8, 10}}));
  EXPECT_EQ(g.block(0, 1), (Ranks{7, 8}));
  EXPECT_EQ(g.group(8, {Axis::pp}), (Ranks{6, 8, 10}));
  EXPECT_FALSE(g.contains(4));
  EXPECT_FALSE(g.contains(11));
}

TEST(Grid, CoordAndRankAreInverse) {
  const Grid g{.offset = 3, .tp = 2, .cp = 3, .dp = 5, .pp = 4};
  for (int r = g.offset; r < g.end(); ++r) EXPECT_EQ(g.rank(g.coord(r)), r);
  EXPECT_EQ(g.rank({.tp = 1, .cp = 2, .dp = 4, .pp = 3}), g.end() - 1);
  EXPECT_THROW(g.coord(2), std::logic_error);
  EXPECT_THROW(g.coord(g.end()), std::logic_error);
  EXPECT_THROW(g.rank({.tp = 2}), std::logic_error);
  EXPECT_THROW(g.rank({.pp = -1}), std::logic_error);
}

TEST(Grid, GroupsOfAnyAxesPartitionTheGrid) {
  const Grid g{.offset = 2, .tp = 2, .cp = 3, .dp = 2, .pp = 2};
  for (int mask = 0; mask < 16; ++mask) {
    std::vector<Axis> axes;
    for (int a = 0; a < 4; ++a)
      if (mask >> a & 1) axes.push_back(static_cast<Axis>(a));
    std::set<int> all;
    for (const Ranks& ranks : g.groups(axes)) {
      EXPECT_TRUE(std::is_sorted(ranks.begin(), ranks.end()));
      all.insert(ranks.begin(), ranks.end());
      for (int r : ranks) EXPECT_EQ(g.group(r, axes), ranks);
    }
    EXPECT_EQ(all.size(), static_cast<size_t>(g.size()));
    EXPECT_EQ(g.groups(axes).size() * g.groups(axes)[0].size(), static_cast<size_t>(g.size()));
  }
}

}  // namespace
}  // namespace mimo
