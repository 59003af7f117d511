#include "parallel/grid.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace mimo {
namespace {

using Groups = std::vector<Ranks>;

// All groups over the given axes, in the order of their first ranks.
Groups groups(const Grid& g, const std::vector<Axis>& axes) {
  Groups all;
  for (int r = g.offset; r < g.end(); ++r)
    if (const Ranks group = g.group(r, axes); group.front() == r) all.push_back(group);
  return all;
}

TEST(Grid, RanksHaveNames) {
  EXPECT_EQ(to_string(Ranks{3}), "rank 3");
  EXPECT_EQ(to_string(Ranks{0, 1, 2, 5}), "ranks 0-2,5");
  EXPECT_EQ(consecutive(2, 5), (Ranks{2, 3, 4}));
}

TEST(Grid, GroupsOfTwoByTwoByTwo) {
  const Grid g{.offset = 0, .tp = 2, .dp = 2, .pp = 2};
  EXPECT_EQ(groups(g, {Axis::tp}), (Groups{{0, 1}, {2, 3}, {4, 5}, {6, 7}}));
  EXPECT_EQ(groups(g, {Axis::dp}), (Groups{{0, 2}, {1, 3}, {4, 6}, {5, 7}}));
  EXPECT_EQ(groups(g, {Axis::pp}), (Groups{{0, 4}, {1, 5}, {2, 6}, {3, 7}}));
  EXPECT_EQ(groups(g, {Axis::tp, Axis::dp}), (Groups{{0, 1, 2, 3}, {4, 5, 6, 7}}));
  EXPECT_EQ(groups(g, {Axis::dp, Axis::tp}), groups(g, {Axis::tp, Axis::dp}));
  EXPECT_EQ(groups(g, {Axis::tp, Axis::pp}), (Groups{{0, 1, 4, 5}, {2, 3, 6, 7}}));
  EXPECT_EQ(groups(g, {}), (Groups{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}}));
}

TEST(Grid, OffsetShiftsEveryRank) {
  const Grid g{.offset = 5, .tp = 2, .dp = 1, .pp = 3};
  EXPECT_EQ(g.size(), 6);
  EXPECT_EQ(g.end(), 11);
  EXPECT_EQ(groups(g, {Axis::pp}), (Groups{{5, 7, 9}, {6, 8, 10}}));
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

// Groups over any axes of a view hold every rank once.
void expect_partitions(const Grid& g, const std::vector<Axis>& view) {
  for (int mask = 0; mask < 16; ++mask) {
    std::vector<Axis> axes;
    int size = 1;
    for (int a = 0; a < 4; ++a)
      if (mask >> a & 1) axes.push_back(view[a]), size *= g.size(view[a]);
    Ranks all;
    for (const Ranks& ranks : groups(g, axes)) {
      EXPECT_EQ(ranks.size(), static_cast<size_t>(size));
      EXPECT_TRUE(std::is_sorted(ranks.begin(), ranks.end()));
      all.insert(all.end(), ranks.begin(), ranks.end());
      for (int r : ranks) EXPECT_EQ(g.group(r, axes), ranks);
    }
    std::sort(all.begin(), all.end());
    EXPECT_EQ(all, consecutive(g.offset, g.end()));
  }
}

TEST(Grid, GroupsOfAnyAxesPartitionTheGrid) {
  expect_partitions({.offset = 2, .tp = 2, .cp = 3, .dp = 2, .pp = 2},
                    {Axis::tp, Axis::cp, Axis::dp, Axis::pp});
  for (const auto& [etp, ep] : {std::pair{1, 1}, {1, 4}, {2, 2}, {4, 1}, {1, 3}, {3, 4}, {2, 6}})
    expect_partitions({.offset = 1, .tp = 2, .cp = 3, .dp = 4, .pp = 2, .etp = etp, .ep = ep},
                      {Axis::etp, Axis::ep, Axis::edp, Axis::pp});
}

TEST(Grid, ExpertsSeeTheSameRanksAlongOtherAxes) {
  const Grid g{.offset = 0, .tp = 2, .dp = 4, .pp = 2, .etp = 1, .ep = 4};
  EXPECT_EQ(g.edp(), 2);
  EXPECT_EQ(groups(g, {Axis::ep}), (Groups{{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}, {12, 13, 14, 15}}));
  EXPECT_EQ(groups(g, {Axis::edp})[1], (Ranks{1, 5}));
  EXPECT_EQ(groups(g, {Axis::edp, Axis::ep, Axis::etp}), groups(g, {Axis::tp, Axis::cp, Axis::dp}));
  // etp as wide as tp: experts are cut as the other layers are.
  const Grid wide{.tp = 2, .dp = 4, .pp = 2, .etp = 2, .ep = 2};
  EXPECT_EQ(groups(wide, {Axis::etp}), groups(wide, {Axis::tp}));
  EXPECT_EQ(groups(wide, {Axis::ep})[0], (Ranks{0, 2}));
  EXPECT_EQ(groups(wide, {Axis::edp})[0], (Ranks{0, 4}));
  EXPECT_EQ(wide.coord(6, Axis::edp), 1);
  EXPECT_EQ(wide.coord(6, Axis::ep), 1);
  EXPECT_EQ(wide.coord(6, Axis::etp), 0);
  // One expert of each kind a rank: the ranks of all lanes.
  const Grid lanes{.offset = 3, .dp = 6, .etp = 1, .ep = 3};
  EXPECT_EQ(groups(lanes, {Axis::ep}), (Groups{{3, 4, 5}, {6, 7, 8}}));
}

TEST(Grid, RefusesViewsThatDoNotFit) {
  const Grid g{.tp = 2, .dp = 3, .ep = 4};
  EXPECT_THROW(g.edp(), std::logic_error);
  EXPECT_THROW(groups(g, {Axis::ep}), std::logic_error);
  EXPECT_THROW(g.group(0, {Axis::etp}), std::logic_error);
  EXPECT_THROW((Grid{.tp = 2, .ep = 0}.edp()), std::logic_error);
  EXPECT_THROW(groups(Grid{.tp = 2, .ep = 2}, {Axis::tp, Axis::ep}), std::logic_error);
  EXPECT_EQ(groups(g, {Axis::tp}).size(), 3u) << "where no expert is asked for";
}

TEST(Grid, StagesGoAroundTheRanks) {
  const Grid g{.offset = 1, .tp = 2, .dp = 2, .pp = 3, .vp = 2};
  EXPECT_EQ(g.stages(), 6);
  EXPECT_EQ(g.size(), 12);
  for (int s = 0; s < g.stages(); ++s)
    for (int lane = 0; lane < g.dp; ++lane)
      for (int r : g.block(lane, s)) {
        EXPECT_EQ(g.coord(r).dp, lane);
        EXPECT_EQ(g.coord(r).pp, s % g.pp);
        const std::vector<int> held = g.stages_of(r);
        EXPECT_EQ(held.size(), 2u);
        EXPECT_EQ(std::count(held.begin(), held.end(), s), 1);
      }
  EXPECT_EQ(g.block(0, 0).size(), 2u);
  EXPECT_EQ(g.block(1, 4), g.block(1, 1));
  EXPECT_EQ(to_string(g), "tp2,pp3,vp2,dp2@1");
  EXPECT_THROW(g.block(0, 6), std::logic_error);
}

}  // namespace
}  // namespace mimo
