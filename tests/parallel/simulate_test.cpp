#include "parallel/simulate.h"

#include <gtest/gtest.h>

#include "parallel/draw.h"
#include "tests/parallel/graphs.h"

namespace mimo {
namespace {

TEST(Simulate, AccountsForEveryRank) {
  testing::GraphBuilder b;
  b.chain({0, 1});
  const PlanGraph g = b.build();
  const Plan plan = plan_step(g, 3);
  const Timeline t = simulate(plan, g);
  ASSERT_EQ(t.spans.size(), plan.order.size());
  EXPECT_EQ(t.makespan, (3 + 1) * 3);
  EXPECT_EQ(t.busy, (std::vector<double>{9, 9}));
  EXPECT_DOUBLE_EQ(t.bubbles, 0.25);
  EXPECT_EQ(t.in_flight, (std::vector<int>{2, 1}));
  EXPECT_EQ(t.memory, (std::vector<double>{2, 1}));
  for (size_t i = 0; i < plan.order.size(); ++i)
    EXPECT_EQ(t.spans[i].end - t.spans[i].start, g.duration(plan.order[i]));
}

// What goes to and what comes fro do not wait for each other.
TEST(Simulate, TransfersRunBesideEachOther) {
  testing::GraphBuilder b;
  b.node({0}, 1, 1), b.node({1}, 1, 1);
  b.edge(0, 1, 3);
  const PlanGraph g = b.build();
  // There at 1 to 10, one after the other; forward and backward of the second node at 4, 7 and 10; back at 6
  // to 15.
  const Timeline t = simulate(plan_step(g, 3), g);
  EXPECT_EQ(t.makespan, 16);
  EXPECT_EQ(t.busy, (std::vector<double>{6, 6}));
}

TEST(Simulate, ColocatedNodesShareTheirRank) {
  testing::GraphBuilder b;
  b.chain({0, 0});
  b.nodes[0].cost.memory = 3;
  const PlanGraph g = b.build();
  const Timeline t = simulate(plan_step(g, 4), g);
  EXPECT_EQ(t.makespan, 4 * 6);
  EXPECT_EQ(t.bubbles, 0);
  EXPECT_EQ(t.busy, std::vector<double>{24});
}

TEST(Simulate, NothingCostsNothing) {
  testing::GraphBuilder b;
  b.chain({0, 1}, 0, 0);
  const PlanGraph g = b.build();
  const Plan plan = plan_step(g, 2);
  const Timeline t = simulate(plan, g);
  EXPECT_EQ(t.makespan, 0);
  EXPECT_EQ(t.bubbles, 0);
  EXPECT_FALSE(draw_text(plan, g, t).empty());
  EXPECT_FALSE(draw_svg(plan, g, t).empty());
}

TEST(Draw, TextOfAPipeline) {
  testing::GraphBuilder b;
  b.chain({0, 1});
  const PlanGraph g = b.build();
  const Plan plan = plan_step(g, 2);
  EXPECT_EQ(draw_text(plan, g, simulate(plan, g)),
            "2 waves on 2 ranks, length 9, 33.3 % of the ranks' time idle\n"
            "rank 0  n0.0  |F0F1....B0==..B1==|\n"
            "rank 1  n1.0  |..F0B0==F1B1==....|\n");
}

TEST(Draw, RanksWithTheSameWorkShareARow) {
  const Layout layout{{{"vision", {.tp = 1, .dp = 4}}, {"language", {.tp = 2, .dp = 2}}}, 4};
  const PlanGraph g = step_graph(layout, {{0, 1}});
  const Plan plan = plan_step(g, 1);
  const std::string s = draw_text(plan, g, simulate(plan, g));
  EXPECT_NE(s.find("rank 3  vision.0 lane 3    |"), std::string::npos) << s;
  EXPECT_NE(s.find("        language.0 lane 1  |"), std::string::npos) << s;
  const Layout tp{{{"language", {.tp = 4}}}, 4};
  const PlanGraph h = step_graph(tp, {});
  const Plan one = plan_step(h, 1);
  EXPECT_NE(draw_text(one, h, simulate(one, h)).find("ranks 0-3  language.0  |F0B0==|\n"), std::string::npos);
}

TEST(Draw, SvgShowsEveryForwardAndBackward) {
  testing::GraphBuilder b;
  b.chain({0, 1, 2});
  b.names[1] = "a<b&c";
  const PlanGraph g = b.build();
  const Plan plan = plan_step(g, 4);
  const std::string s = draw_svg(plan, g, simulate(plan, g));
  const auto count = [&](const std::string& part) {
    int n = 0;
    for (size_t i = s.find(part); i != std::string::npos; i = s.find(part, i + 1)) ++n;
    return n;
  };
  EXPECT_EQ(count("<title>forward"), 3 * 4);
  EXPECT_EQ(count("<title>backward"), 3 * 4);
  EXPECT_EQ(count(">rank 2<"), 1);
  EXPECT_GT(count("a&lt;b&amp;c"), 0);
  EXPECT_EQ(count("a<b"), 0);
  EXPECT_EQ(count("<text"), count("</text>"));
}

}  // namespace
}  // namespace mimo
