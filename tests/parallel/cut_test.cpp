#include "parallel/cut.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace mimo {
namespace {

Parameter placed(const Cut& cut, const Dims& shape, const Grid& grid, int rank) {
  Parameter p;
  p.shape = shape;
  place(p, cut, grid, grid.coord(rank));
  return p;
}

// rank = 1 + tp_i + 2 cp_i + 4 dp_i + 8 pp_i
const Grid kGrid{.offset = 1, .tp = 2, .cp = 2, .dp = 2, .pp = 2};

TEST(Cut, CutParametersAddOverTokens) {
  for (int rank : {1, 3, 5, 7}) {
    const Parameter p = placed(kRows, {6, 4}, kGrid, rank);
    EXPECT_EQ(p.shard, (Shard{{{0, 0}, {3, 4}}}));
    EXPECT_EQ(p.copies, (Ranks{1, 3, 5, 7}));
    EXPECT_EQ(p.partial, (std::vector<Ranks>{{1, 3, 5, 7}}));
  }
  const Parameter p = placed(kColumns, {6, 4}, kGrid, 12);
  EXPECT_EQ(p.shard, (Shard{{{0, 2}, {6, 2}}}));
  EXPECT_EQ(p.copies, (Ranks{10, 12, 14, 16}));
  EXPECT_EQ(p.partial, (std::vector<Ranks>{{10, 12, 14, 16}}));
  EXPECT_EQ(placed({.axis = 0, .uneven = true}, {5}, kGrid, 2).shard, (Shard{{{2}, {3}}}));
  EXPECT_EQ(placed({.axis = 0, .blocks = {4, 2}}, {6}, kGrid, 2).shard, (Shard{{{2}, {2}}, {{5}, {1}}}));
}

TEST(Cut, ReplicatedOnesHaveEqualGradientsAlongTp) {
  const Parameter p = placed(kReplicated, {6, 4}, kGrid, 4);
  EXPECT_EQ(p.shard, whole({6, 4}));
  EXPECT_EQ(p.copies, consecutive(1, 9));
  EXPECT_EQ(p.partial, (std::vector<Ranks>{{2, 4, 6, 8}}));
}

TEST(Cut, NormsOfOtherTokensOrHeadsAddAlongTpToo) {
  const Parameter p = placed({.adds = {Axis::tp, Axis::cp, Axis::dp}}, {6}, kGrid, 4);
  EXPECT_EQ(p.copies, consecutive(1, 9));
  EXPECT_EQ(p.partial, (std::vector<Ranks>{consecutive(1, 9)}));
}

TEST(Cut, ReplicasOfKeysAndValuesAdd) {
  // Two heads of four rows on tp of four: ranks 0 and 1 have the first.
  const Grid grid{.tp = 4, .dp = 2};
  const Cut cut{.axis = 0, .replicas = 2};
  for (int rank : {2, 3, 6, 7}) {
    const Parameter p = placed(cut, {8, 3}, grid, rank);
    EXPECT_EQ(p.shard, (Shard{{{4, 0}, {4, 3}}}));
    EXPECT_EQ(p.copies, (Ranks{2, 3, 6, 7}));
    EXPECT_EQ(p.partial, (std::vector<Ranks>{{2, 3, 6, 7}}));
  }
  // One head: all ranks have it.
  EXPECT_EQ(placed({.axis = 0, .replicas = 4}, {8, 3}, grid, 5).partial,
            (std::vector<Ranks>{consecutive(0, 8)}));
  EXPECT_THROW(placed({.axis = 0, .replicas = 3}, {8, 3}, grid, 0), std::logic_error);
}

TEST(Cut, ExpertsLieAlongTheirOwnAxes) {
  // Four experts [4, f, d] over eight ranks: two parts of experts, each cut in two along f; two lanes.
  const Grid grid{.tp = 2, .dp = 4, .etp = 2, .ep = 2};
  const Cut cut{
      .axis = 0, .over = {Axis::ep}, .adds = {Axis::edp}, .then = {{.axis = 1, .over = {Axis::etp}}}};
  for (int rank : {3, 7}) {
    const Parameter p = placed(cut, {4, 6, 5}, grid, rank);
    EXPECT_EQ(p.shard, (Shard{{{2, 3, 0}, {2, 3, 5}}}));
    EXPECT_EQ(p.copies, (Ranks{3, 7}));
    EXPECT_EQ(p.partial, (std::vector<Ranks>{{3, 7}}));
  }
  // Of blocks (gate | up) every expert has its share of both.
  const Cut gated{.axis = 0,
                  .over = {Axis::ep},
                  .adds = {Axis::edp},
                  .then = {{.axis = 1, .blocks = {4, 4}, .over = {Axis::etp}}}};
  EXPECT_EQ(placed(gated, {2, 8, 5}, grid, 2).shard, (Shard{{{1, 0, 0}, {1, 2, 5}}, {{1, 4, 0}, {1, 2, 5}}}));
  // Not cut by etp, an expert lies on both its ranks, with the same gradient.
  const Parameter p = placed({.axis = 0, .over = {Axis::ep}, .adds = {Axis::edp}}, {4, 6}, grid, 3);
  EXPECT_EQ(p.copies, (Ranks{2, 3, 6, 7}));
  EXPECT_EQ(p.partial, (std::vector<Ranks>{{3, 7}}));
  EXPECT_THROW(placed({.axis = 0, .over = {Axis::ep}}, {4, 6}, grid, 3), std::logic_error)
      << "cp and dp are of the other view";
}

TEST(Cut, TiedOnesAddOverTheEndsOfThePipeline) {
  const Grid grid{.tp = 2, .dp = 2, .pp = 3};
  const Cut cut{.axis = 0, .tied = true};
  for (int rank : {3, 11}) {
    const Parameter p = placed(cut, {6, 4}, grid, rank);
    EXPECT_EQ(p.copies, (Ranks{1, 3, 9, 11}));
    EXPECT_EQ(p.partial, (std::vector<Ranks>{rank == 3 ? Ranks{1, 3} : Ranks{9, 11}, {3, 11}}));
  }
  EXPECT_THROW(placed(cut, {6, 4}, grid, 5), std::logic_error);
  EXPECT_EQ(placed(cut, {6, 4}, {.tp = 2, .dp = 2}, 3).partial, (std::vector<Ranks>{{1, 3}}));
}

TEST(Cut, RefusesWhatMakesNoSense) {
  EXPECT_ANY_THROW(placed({.axis = 0, .adds = {Axis::tp}}, {6}, kGrid, 1));
  EXPECT_ANY_THROW(placed({.adds = {Axis::pp}}, {6}, kGrid, 1));
  EXPECT_ANY_THROW(placed(kRows, {5}, kGrid, 1));
  EXPECT_ANY_THROW(placed(kColumns, {6}, kGrid, 1));
  EXPECT_ANY_THROW(placed({.axis = 1, .then = {{.axis = 0}}}, {6, 6}, kGrid, 1));
}

// Whatever the cut: the ranks of a stage that hold an element are its copies, on every one of them; ranks
// whose gradients add agree on that, and are among the copies.
TEST(Cut, CopiesAreTheRanksThatHoldTheSameElements) {
  const std::vector<Cut> cuts = {
      kReplicated,
      kRows,
      kColumns,
      {.axis = 0, .uneven = true},
      {.axis = 1, .blocks = {8, 16}},
      {.axis = 0, .replicas = 2},
      {.axis = 0, .over = {Axis::tp, Axis::cp}, .adds = {Axis::dp}},
      {.adds = {Axis::tp, Axis::cp, Axis::dp}},
      {.axis = 0, .over = {Axis::ep}, .adds = {Axis::edp}},
      {.axis = 0, .over = {Axis::ep}, .adds = {Axis::edp}, .then = {{.axis = 1, .over = {Axis::etp}}}},
      {.axis = 0,
       .over = {Axis::ep},
       .adds = {Axis::edp},
       .then = {{.axis = 1, .blocks = {8, 16}, .over = {Axis::etp}, .replicas = 2}}},
  };
  const Grid grid{.offset = 2, .tp = 4, .cp = 2, .dp = 3, .pp = 2, .etp = 4, .ep = 2};
  const Dims shape{8, 24};
  for (size_t i = 0; i < cuts.size(); ++i) {
    SCOPED_TRACE(i);
    std::map<int64_t, Ranks> holders;  // by element
    std::map<int, Parameter> all;
    for (int r = grid.offset; r < grid.offset + grid.size() / grid.pp; ++r) {
      Parameter& p = all[r] = placed(cuts[i], shape, grid, r);
      for_each_run(p.shard, shape, [&](int64_t, int64_t global, int64_t count) {
        for (int64_t k = 0; k < count; ++k) holders[global + k].push_back(r);
      });
    }
    EXPECT_EQ(holders.size(), static_cast<size_t>(numel(shape)));
    for (const auto& [element, ranks] : holders)
      for (int r : ranks) EXPECT_EQ(all[r].copies, ranks);
    for (const auto& [r, p] : all) {
      ASSERT_EQ(p.partial.size(), 1u);
      EXPECT_TRUE(std::includes(p.copies.begin(), p.copies.end(), p.partial[0].begin(), p.partial[0].end()));
      EXPECT_TRUE(std::binary_search(p.partial[0].begin(), p.partial[0].end(), r));
      for (int q : p.partial[0]) EXPECT_EQ(all[q].partial, p.partial);
      EXPECT_EQ(all[p.copies[0]].shard, p.shard);
    }
  }
}

}  // namespace
}  // namespace mimo
