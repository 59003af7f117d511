#include "parallel/route.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace mimo {
namespace {

Layout two_modules(int src_lanes, int dst_lanes) {
  return {{{"vision", Grid{.dp = src_lanes}}, {"language", Grid{.dp = dst_lanes}}}, src_lanes + dst_lanes};
}

TEST(Deal, CutsWavesAndLanesInContiguousRanges) {
  const std::vector<Wave> waves = deal(7, 2, two_modules(1, 2));
  ASSERT_EQ(waves.size(), 2u);
  EXPECT_EQ(waves[0].samples, (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(waves[1].samples, (std::vector<int64_t>{3, 4, 5, 6}));
  EXPECT_EQ(waves[0].lane[0], (std::vector<int>{0, 0, 0}));
  EXPECT_EQ(waves[0].lane[1], (std::vector<int>{0, 1, 1}));
  EXPECT_EQ(waves[1].lane[1], (std::vector<int>{0, 0, 1, 1}));
  EXPECT_EQ(owned(waves[0], 1, 1), (std::vector<int>{1, 2}));
}

TEST(Deal, LaneIOfDGetsItsInterval) {
  for (int lanes = 1; lanes <= 7; ++lanes)
    for (int64_t n = 0; n <= 20; ++n) {
      const Wave wave = deal(n, 1, two_modules(lanes, 1))[0];
      for (int i = 0; i < lanes; ++i) {
        const std::vector<int> mine = owned(wave, 0, i);
        ASSERT_EQ(static_cast<int64_t>(mine.size()), (i + 1) * n / lanes - i * n / lanes);
        for (size_t k = 0; k < mine.size(); ++k) ASSERT_EQ(mine[k], i * n / lanes + static_cast<int64_t>(k));
      }
    }
}

TEST(Deal, NoSamplesAreAnOrdinaryCase) {
  const std::vector<Wave> waves = deal(1, 3, two_modules(2, 3));
  EXPECT_TRUE(waves[0].samples.empty());
  EXPECT_TRUE(waves[1].samples.empty());
  EXPECT_EQ(waves[2].samples, (std::vector<int64_t>{0}));
  EXPECT_TRUE(route(waves[0], 0, 1, [](int64_t) { return 3; }).empty());
  EXPECT_THROW(deal(1, 0, two_modules(1, 1)), std::logic_error);
}

// Sends labelled rows along the routes and looks at what arrives.
void check_route(const Wave& wave, int dst_lanes, const std::vector<int64_t>& rows) {
  using Row = std::pair<int64_t, int64_t>;  // sample, row in it
  const auto lay = [&](int module, int lane) {
    std::vector<Row> out;
    for (int p : owned(wave, module, lane))
      for (int64_t r = 0; r < rows[wave.samples[p]]; ++r) out.emplace_back(wave.samples[p], r);
    return out;
  };
  const std::vector<Route> routes = route(wave, 0, 1, [&](int64_t s) { return rows[s]; });
  std::vector<std::vector<Row>> arrived(dst_lanes);
  for (int j = 0; j < dst_lanes; ++j) arrived[j].assign(lay(1, j).size(), Row{-1, -1});
  std::map<std::pair<int, int>, const Route*> last;
  for (const Route& r : routes) {
    ASSERT_GT(r.rows, 0);
    const std::vector<Row> from = lay(0, r.src_lane);
    for (int64_t k = 0; k < r.rows; ++k) {
      Row& to = arrived.at(r.dst_lane).at(r.dst_begin + k);
      ASSERT_EQ(to, (Row{-1, -1})) << "two routes fill one row";
      to = from.at(r.src_begin + k);
    }
    const Route*& before = last[{r.src_lane, r.dst_lane}];
    if (before) {
      ASSERT_LE(before->src_begin + before->rows, r.src_begin) << "order is kept";
      ASSERT_LE(before->dst_begin + before->rows, r.dst_begin) << "order is kept";
      ASSERT_FALSE(before->src_begin + before->rows == r.src_begin &&
                   before->dst_begin + before->rows == r.dst_begin)
          << "runs are maximal";
    }
    before = &r;
  }
  for (int j = 0; j < dst_lanes; ++j) ASSERT_EQ(arrived[j], lay(1, j));
  int64_t sent = 0, total = 0;
  for (const Route& r : routes) sent += r.rows;
  for (int64_t s : wave.samples) total += rows[s];
  ASSERT_EQ(sent, total);
}

TEST(Route, EveryRowArrivesOnceForAnyTwoLaneCounts) {
  std::mt19937 random(1);
  for (int s = 1; s <= 7; ++s)
    for (int d = 1; d <= 7; ++d) {
      const auto pairs = lane_pairs(s, d);
      const std::set<std::pair<int, int>> possible(pairs.begin(), pairs.end());
      std::set<std::pair<int, int>> met;
      for (int n : {0, 1, 2, 3, 5, 7, 12, s * d}) {
        std::vector<int64_t> rows(n);
        for (int64_t& r : rows) r = random() % 6;
        for (const Wave& wave : deal(n, n > 4 ? 2 : 1, two_modules(s, d))) {
          check_route(wave, d, rows);
          for (const Route& r : route(wave, 0, 1, [](int64_t) { return 1; }))
            ASSERT_TRUE(possible.contains({r.src_lane, r.dst_lane})) << s << " lanes to " << d << ", " << n;
        }
        for (const Route& r : route(deal(n, 1, two_modules(s, d))[0], 0, 1, [](int64_t) { return 1; }))
          met.insert({r.src_lane, r.dst_lane});
      }
      EXPECT_EQ(met, possible) << "n = s d reaches every pair";
    }
}

TEST(Route, HoldsForAnyAssignmentOfSamplesToLanes) {
  std::mt19937 random(2);
  for (int trial = 0; trial < 300; ++trial) {
    const int s = 1 + random() % 4, d = 1 + random() % 4, n = random() % 12;
    Wave wave;
    std::vector<int64_t> rows(n);
    wave.lane.assign(2, std::vector<int>(n));
    for (int p = 0; p < n; ++p) {
      wave.samples.push_back(n - 1 - p);  // indices need not ascend
      rows[p] = random() % 6;
      wave.lane[0][p] = random() % s;
      wave.lane[1][p] = random() % d;
    }
    check_route(wave, d, rows);
  }
}

TEST(Route, JoinsRunsThatOthersInterrupt) {
  Wave wave{{0, 1, 2}, {{0, 1, 0}, {0, 1, 0}}};
  EXPECT_EQ(route(wave, 0, 1, [](int64_t) { return 2; }),
            (std::vector<Route>{{0, 0, 0, 0, 4}, {1, 1, 0, 0, 2}}));
}

TEST(Route, LanePairsOfThreeToTwo) {
  EXPECT_EQ(lane_pairs(3, 2), (std::vector<std::pair<int, int>>{{0, 0}, {1, 0}, {1, 1}, {2, 1}}));
  EXPECT_EQ(lane_pairs(1, 3), (std::vector<std::pair<int, int>>{{0, 0}, {0, 1}, {0, 2}}));
}

}  // namespace
}  // namespace mimo
