#include "parallel/plan.h"

#include <gtest/gtest.h>

#include <set>

#include "parallel/simulate.h"
#include "parallel/verify.h"
#include "tensor/error.h"
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
  verify(r.plan, g);
  r.time = simulate(r.plan, g);
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
  EXPECT_EQ(planned(g.build(), 8).time.makespan, 36);  // the work of a rank: no bubble at all
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

TEST(Plan, ForwardOnlyHasNoBackward) {
  GraphBuilder b;
  b.chain({0, 1, 2});
  const PlanGraph g = b.build(true);
  const Result r = planned(g, 5);
  EXPECT_EQ(r.time.makespan, 5 + 2);
  std::set<Action::Kind> kinds;
  for (const Action& a : r.plan.order) kinds.insert(a.kind);
  EXPECT_EQ(kinds, (std::set{Action::Kind::forward, Action::Kind::send_forward, Action::Kind::step_reduce}));
}

TEST(Plan, FrozenModules) {
  // Nothing before the first is trainable: it has no backward. The last passes gradients through.
  const Layout layout{{{"vision", {.offset = 0}}, {"audio", {.offset = 1}}, {"language", {.offset = 2}}}, 3};
  Costs costs;
  const StageCost trained, frozen{.trainable = false};
  costs.stages = {{frozen}, {trained}, {frozen}};
  const PlanGraph g = step_graph(layout, {{0, 2}, {1, 2}}, costs);
  EXPECT_FALSE(g.has_backward(0));
  EXPECT_TRUE(g.has_backward(1));
  EXPECT_TRUE(g.has_backward(2));
  EXPECT_EQ(g.reduced_stages(), (std::vector<std::pair<int, int>>{{1, 0}}));
  EXPECT_EQ(g.settled_by(0), std::vector<int>{2});
  const Result r = planned(g, 4);
  for (const Action& a : r.plan.order) {
    EXPECT_FALSE(a.kind == Action::Kind::backward && a.module == 0);
    EXPECT_FALSE(a.kind == Action::Kind::send_backward && a.module == 0);
    EXPECT_FALSE(a.kind == Action::Kind::reduce && a.module != 1);
  }
  // Everything frozen: nothing is differentiated, the step still ends with its reduction and update.
  costs.stages = {{frozen}, {frozen}, {frozen}};
  EXPECT_EQ(planned(step_graph(layout, {{0, 2}, {1, 2}}, costs), 4).time.makespan, 4 + 1);
}

TEST(Plan, TransfersTakeTimeOnlyAcrossRanks) {
  // One wave: forward 1, transfer 0.25, forward 1 and backward the same with 0.75; colocated without the
  // transfers.
  for (int offset : {1, 0}) {
    const Layout layout{{{"a", {}}, {"b", {.offset = offset}}}, 1 + offset};
    Costs costs;
    costs.transfer = {{0.25, 0.75}};
    EXPECT_EQ(planned(step_graph(layout, {{0, 1}}, costs), 1).time.makespan, 6 + offset);
    // Where each rank has a part of the rows, what another one needs may travel on the same ranks as well.
    costs.transfer[0].spread = true;
    EXPECT_EQ(planned(step_graph(layout, {{0, 1}}, costs), 1).time.makespan, 7);
  }
}

TEST(Plan, ReductionsOverlapWithOtherStages) {
  // Stage 1 reduces its gradients while stage 0 still computes its last backward.
  const Layout layout{{{"language", {.dp = 2, .pp = 2}}}, 4};
  Costs costs;
  costs.stages = {{{.buckets = {{.reduce = 1}}}, {.buckets = {{.reduce = 2}}}}};
  costs.step_reduce = 0.5;
  costs.update = 0.25;
  const PlanGraph g = step_graph(layout, {}, costs);
  EXPECT_EQ(planned(g, 4).time.makespan, (4 + 1) * 3 + 1 + 0.5 + 0.25);
  EXPECT_EQ(g.participants({.kind = Action::Kind::reduce, .module = 0, .stage = 1}), (Ranks{2, 3}));
}

TEST(Plan, MemoryBound) {
  GraphBuilder b;
  b.chain({0, 1, 2, 3});
  const PlanGraph g = b.build();
  EXPECT_EQ(planned(g, 8).time.memory[0], 4);
  const Result two = planned(g, 8, {.memory = 2});
  EXPECT_EQ(*std::max_element(two.time.memory.begin(), two.time.memory.end()), 2);
  EXPECT_GT(two.time.makespan, (8 + 3) * 3);
  EXPECT_EQ(planned(g, 8, {.memory = 1}).time.makespan, 8 * 4 * 3);
  try {
    plan_step(g, 8, {.memory = 0.5});
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_NE(std::string(e.what()).find("found at least 1"), std::string::npos) << e.what();
  }
}

TEST(Plan, RefusesGraphsThatMakeNoSense) {
  GraphBuilder b;
  b.chain({0, 1});
  EXPECT_ANY_THROW(plan_step(b.build(), 0));
  b.edge(1, 0);
  EXPECT_ANY_THROW(b.build());  // a cycle
  b.edges.pop_back();
  b.edge(0, 7);
  EXPECT_ANY_THROW(b.build());
  b.edges.pop_back();
  b.nodes[0].cost.forward = -1;
  EXPECT_ANY_THROW(b.build());
  b.nodes[0].cost.forward = 1;
  b.nodes[1].ranks = {};
  EXPECT_ANY_THROW(b.build());
  b.nodes[1].ranks = {1, 1};
  EXPECT_ANY_THROW(b.build());
  EXPECT_ANY_THROW(step_graph({{{"a", {}}}, 1}, {{0, 1}}));
  Costs short_costs;
  short_costs.stages = {{{}}};
  EXPECT_ANY_THROW(step_graph({{{"a", {.pp = 2}}}, 2}, {}, short_costs));
}

TEST(Plan, TheSameCostsUpToRoundingGiveTheSamePlan) {
  std::mt19937 random(5);
  for (int i = 0; i < 50; ++i) {
    testing::RandomStep s = testing::random_step(random);
    const Plan plan = plan_step(step_graph(s.layout, s.edges, s.costs), 4);
    for (auto& module : s.costs.stages)
      for (StageCost& c : module) c.forward *= 1 + 1e-12, c.backward *= 1 - 1e-12;
    EXPECT_EQ(plan.order, plan_step(step_graph(s.layout, s.edges, s.costs), 4).order);
  }
}

// No rank can be faster than its own work, and none is busy with two things at once.
void expect_sound(const PlanGraph& g, int waves) {
  const Plan plan = plan_step(g, waves);
  ASSERT_NO_THROW(verify(plan, g));
  const Timeline t = simulate(plan, g);
  std::vector<double> work(g.world());
  for (int n = 0; n < static_cast<int>(g.nodes().size()); ++n) {
    const PlanGraph::Node& node = g.nodes()[n];
    for (int r : node.ranks)
      work[r] += waves * (node.cost.forward + (g.has_backward(n) ? node.cost.backward : 0));
    EXPECT_LE(t.in_flight[n], std::max(waves, 1));
    EXPECT_EQ(t.in_flight[n], plan.in_flight[n]);
  }
  for (int r = 0; r < g.world(); ++r) {
    EXPECT_NEAR(t.busy[r], work[r], 1e-9 * (1 + work[r]));
    EXPECT_LE(t.busy[r], t.makespan * (1 + 1e-9));
  }
}

TEST(Plan, RandomGraphs) {
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    SCOPED_TRACE(i);
    expect_sound(testing::random_graph(random, i % 8 == 7), 1 + static_cast<int>(random() % 6));
    if (HasFailure()) return;
  }
}

TEST(Plan, RandomLayouts) {
  std::mt19937 random(2);
  for (int i = 0; i < 500; ++i) {
    SCOPED_TRACE(i);
    const testing::RandomStep s = testing::random_step(random);
    expect_sound(step_graph(s.layout, s.edges, s.costs, i % 8 == 7), 1 + static_cast<int>(random() % 4));
    if (HasFailure()) return;
  }
}

// What verify says of a plan that was tampered with.
std::string complaint(Plan plan, const PlanGraph& g) {
  try {
    verify(plan, g);
  } catch (const std::logic_error& e) {
    return e.what();
  }
  return "";
}

TEST(Verify, NamesWhatIsWrong) {
  GraphBuilder b;
  b.names = {"vision", "language"};
  b.nodes = {{0, 0, 0, {0}, {}}, {1, 0, 0, {1}, {}}};
  b.edges = {{0, 1}};
  const PlanGraph g = b.build();
  const Plan good = plan_step(g, 2);
  EXPECT_EQ(complaint(good, g), "");
  const auto position = [&](Action::Kind kind, int wave) {
    for (size_t i = 0; i < good.order.size(); ++i)
      if (good.order[i].kind == kind && good.order[i].wave == wave) return i;
    return good.order.size();
  };
  const auto expect = [&](const Plan& plan, const std::string& part) {
    const std::string found = complaint(plan, g);
    EXPECT_NE(found.find(part), std::string::npos) << "expected: " << part << "\nfound: " << found;
  };
  // Every single action left out, given twice, or of another wave is noticed.
  for (size_t i = 0; i < good.order.size(); ++i) {
    Plan p = good;
    p.order.erase(p.order.begin() + i);
    EXPECT_NE(complaint(p, g), "") << i;
    p = good;
    p.order.insert(p.order.begin() + i, good.order[i]);
    EXPECT_NE(complaint(p, g), "") << i;
    p = good;
    if (p.order[i].wave < 0) continue;
    p.order[i].wave = 2;
    expect(p, "expected a wave of 0 to 1, found 2");
  }
  Plan p = good;
  p.order.erase(p.order.begin() + position(Action::Kind::send_forward, 0));
  expect(p, "needs");
  p = good;
  std::swap(p.order[position(Action::Kind::send_forward, 0)], p.order[position(Action::Kind::forward, 0)]);
  expect(p,
         "action 0 (send_forward vision.0 lane 0 -> language.0 lane 0 wave 0): comes before forward "
         "vision.0 lane 0 wave 0, which it needs");
  p = good;
  p.order.pop_back();
  expect(p, "lacks the update");
  p = good;
  p.in_flight[0] = 1;
  expect(p, "expected at most 1 waves in flight, found 2");
  p = good;
  p.order.insert(p.order.end() - 1, p.order[0]);
  expect(p, "comes after the step reduction");
}

// Of every two actions of which one needs the other, that one moved behind.
TEST(Verify, NamesWhatAnActionNeeds) {
  GraphBuilder b;
  b.chain({0, 1});
  const PlanGraph g = b.build();
  const Plan good = plan_step(g, 1);
  using Kind = Action::Kind;
  const auto position = [&](Kind kind, int module) {
    const auto is = [&](const Action& a) { return a.kind == kind && (module < 0 || a.module == module); };
    return std::find_if(good.order.begin(), good.order.end(), is) - good.order.begin();
  };
  struct Need {
    Kind before;
    int before_module;
    Kind after;
    int after_module;
  };
  for (const Need& n : std::vector<Need>{{Kind::forward, 0, Kind::send_forward, 0},
                                         {Kind::send_forward, 0, Kind::forward, 1},
                                         {Kind::forward, 1, Kind::backward, 1},
                                         {Kind::backward, 1, Kind::send_backward, 0},
                                         {Kind::send_backward, 0, Kind::backward, 0},
                                         {Kind::backward, 0, Kind::reduce, 0},
                                         {Kind::backward, 1, Kind::reduce, 1},
                                         {Kind::reduce, 0, Kind::step_reduce, -1},
                                         {Kind::reduce, 1, Kind::step_reduce, -1},
                                         {Kind::step_reduce, -1, Kind::update, -1}}) {
    const auto from = position(n.before, n.before_module), to = position(n.after, n.after_module);
    ASSERT_LT(from, to);
    ASSERT_LT(to, static_cast<std::ptrdiff_t>(good.order.size()));
    Plan p = good;
    std::rotate(p.order.begin() + from, p.order.begin() + from + 1, p.order.begin() + to + 1);
    const std::string found = complaint(p, g);
    EXPECT_NE(found.find("comes before " + g.describe(good.order[from]) + ", which it needs"),
              std::string::npos)
        << found;
  }
}

TEST(Verify, ListsThatDisagreeDeadlock) {
  // A->B, A->L, B->L where L takes A's result before B's and A gives to L first: with one thing at a time and
  // no buffers B never gets its input.
  GraphBuilder b;
  const int a = b.node({0}), m = b.node({1}), l = b.node({2});
  b.edge(a, m);
  b.edge(a, l);
  b.edge(m, l);
  const PlanGraph g = b.build();
  const Plan plan = plan_step(g, 1);
  std::vector<std::vector<Action>> lists = rank_lists(plan, g);
  EXPECT_NO_THROW(run_unbuffered(lists, g));
  const auto kind_of = [](int edge) {
    return [edge](const Action& x) { return x.kind == Action::Kind::send_forward && x.edge == edge; };
  };
  const auto al = std::find_if(lists[0].begin(), lists[0].end(), kind_of(1));
  const auto ab = std::find_if(lists[0].begin(), lists[0].end(), kind_of(0));
  std::iter_swap(al, ab);
  const auto from_a = std::find_if(lists[2].begin(), lists[2].end(), kind_of(1));
  const auto from_b = std::find_if(lists[2].begin(), lists[2].end(), kind_of(2));
  if (from_a < from_b) std::iter_swap(from_a, from_b);
  // Now rank 0 waits for 2, which waits for 1, which waits for 0.
  try {
    run_unbuffered(lists, g);
    FAIL() << "no deadlock found";
  } catch (const std::logic_error& e) {
    const std::string s = e.what();
    EXPECT_NE(s.find("rank 0 in send_forward n0.0 lane 0 -> n2.0 lane 0 wave 0 waits for rank 2"),
              std::string::npos)
        << s;
    EXPECT_NE(s.find("rank 2 in send_forward n1.0 lane 0 -> n2.0 lane 0 wave 0 waits for rank 1"),
              std::string::npos)
        << s;
  }
}

}  // namespace
}  // namespace mimo
