#include "parallel/plan.h"

#include <gtest/gtest.h>

#include <chrono>

#include "parallel/simulate.h"
#include "tests/parallel/graphs.h"

namespace mimo {
namespace {

using testing::GraphBuilder;

struct Result {
  Plan plan;
  Timeline time;
};
Result planned(const PlanGraph& g, int waves, const PlanOptions& options = {}) {
  Result r{plan_step(g, waves, options), {}};
  r.time = simulate(r.plan, g);
  std::printf("%g %s\n", r.time.makespan, r.plan.choice.c_str());
  return r;
}

TEST(Plan, ChainsAre1F1B) {
  for (int p : {1, 2, 4, 8}) {
    GraphBuilder b;
    Ranks ranks;
    for (int r = 0; r < p; ++r) ranks.push_back(r);
    b.chain(ranks);
    const Result r = planned(b.build(), 16);
    EXPECT_EQ(r.time.makespan, (16 + p - 1) * 3);
    for (int n = 0; n < p; ++n) EXPECT_EQ(r.time.in_flight[n], p - n);
  }
}

TEST(Plan, EncodersOfUnequalDepth) {
  // A wave crosses image and language once each way; the last language stage works on the 15 others.
  for (double f : {1.0, 0.5}) {
    GraphBuilder b;
    const auto image = b.chain({0, 1}, f, 2 * f), audio = b.chain({2}, 0.5, 1),
               language = b.chain({3, 4, 5, 6});
    b.edge(image.second, language.first);
    b.edge(audio.second, language.first);
    EXPECT_EQ(planned(b.build(), 16).time.makespan, 2 * (3 * f) + 4 * 3 + 15 * 3);
  }
}

TEST(Plan, EdgesThatSkip) {
  GraphBuilder g;
  const int a = g.node({0}), b = g.node({1}), l = g.node({2});
  g.edge(a, b);
  g.edge(a, l);
  g.edge(b, l);
  EXPECT_EQ(planned(g.build(), 8).time.makespan, (8 + 2) * 3);
}

TEST(Plan, FrozenEncoder) {
  GraphBuilder g;
  const int vision = g.node({0}, 1, 2, false);
  g.edge(vision, g.chain({1, 2}).first);
  EXPECT_EQ(planned(g.build(), 16).time.makespan, 52);
}

TEST(Plan, ColocatedEncoder) {
  GraphBuilder g;
  g.names = {"vision", "language"};
  const StageCost cost{.forward = 0.5, .backward = 1};
  g.nodes = {{0, 0, 0, {0}, cost}, {0, 0, 1, {1}, cost}, {1, 0, 0, {0}, {}}, {1, 1, 0, {1}, {}}};
  g.edges = {{2, 3}, {0, 2, 0, 1}, {1, 2, 0, 1}};
  EXPECT_LE(planned(g.build(), 8).time.makespan, 37);
}

TEST(Plan, InterleavedVirtualStages) {
  GraphBuilder two;
  two.chain({0, 1, 0, 1}, 0.5, 1);
  EXPECT_LE(planned(two.build(), 8).time.makespan, 25.5);
  GraphBuilder four;
  Ranks ranks;
  for (int i = 0; i < 16; ++i) ranks.push_back(i % 4);
  four.chain(ranks, 0.25, 0.5);
  EXPECT_LE(planned(four.build(), 16).time.makespan, 50.25);
}

TEST(Plan, RandomGraphsAreNeverStuck) {
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    const PlanGraph g = testing::random_graph(random, i % 8 == 7);
    const int waves = 1 + static_cast<int>(random() % 6);
    EXPECT_NO_THROW(plan_step(g, waves)) << i;
  }
}

}  // namespace
}  // namespace mimo
