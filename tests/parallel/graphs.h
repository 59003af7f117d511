// Small step graphs for the tests of planner, simulator and executor.
#pragma once
#include <bit>
#include <random>

#include "parallel/plan.h"

namespace mimo::testing {

// Every node is its own module with one stage and one lane.
struct GraphBuilder {
  std::vector<std::string> names;
  std::vector<PlanGraph::Node> nodes;
  std::vector<PlanGraph::Edge> edges;

  int node(Ranks ranks, double forward = 1, double backward = 2, bool trainable = true) {
    const int id = static_cast<int>(nodes.size());
    names.push_back(std::string("n").append(std::to_string(id)));
    PlanGraph::Node n;
    n.module = id;
    n.ranks = std::move(ranks);
    n.cost.trainable = trainable;
    n.cost.forward = forward;
    n.cost.backward = backward;
    nodes.push_back(std::move(n));
    return id;
  }
  void edge(int src, int dst, double transfer = 0) { edges.push_back({src, dst, {transfer, transfer}}); }
  // A chain of nodes, one on each of the ranks; returns the first and the last.
  std::pair<int, int> chain(const Ranks& ranks, double forward = 1, double backward = 2,
                            bool trainable = true) {
    const int first = node({ranks[0]}, forward, backward, trainable);
    int last = first;
    for (size_t i = 1; i < ranks.size(); ++i) {
      const int next = node({ranks[i]}, forward, backward, trainable);
      edge(last, next);
      last = next;
    }
    return {first, last};
  }
  PlanGraph build(bool forward_only = false) const { return PlanGraph(names, nodes, edges, forward_only); }
};

// A random graph: nodes on random sets of ranks that others may share, edges between random pairs (so chains,
// siblings, joins and edges that skip nodes), some nodes frozen, costs in quarters.
inline PlanGraph random_graph(std::mt19937& random, bool forward_only = false) {
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  GraphBuilder b;
  const int world = 1 + below(6), nodes = 1 + below(8), density = 1 + below(4);
  for (int n = 0; n < nodes; ++n) {
    Ranks ranks;
    for (int r = 0; r < world; ++r)
      if (below(3) == 0) ranks.push_back(r);
    if (ranks.empty()) ranks.push_back(below(world));
    b.node(ranks, below(9) * 0.25, below(9) * 0.25, below(4) != 0);
    for (int m = 0; m < n; ++m)
      if (below(4) < density && (m + 1 == n || below(2))) b.edge(m, n, below(3) * 0.25);
  }
  return b.build(forward_only);
}

// A random layout of one to three modules with edges into the last, and from the first to the second:
// disjoint, on the same ranks, or each where it likes as long as no rank is left out; some with virtual
// stages.
struct RandomStep {
  Layout layout;
  ModuleEdges edges;
  Costs costs;
  std::vector<bool> trainable;
};
inline RandomStep random_step(std::mt19937& random, int most_lanes = 4) {
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  RandomStep s;
  const int modules = 1 + below(3);
  enum class Place { disjoint, together, anywhere } const place{below(3)};
  int& world = s.layout.world = 0;
  for (int m = 0; m < modules; ++m) {
    Grid g{.tp = 1 << below(2), .dp = 1 + below(most_lanes), .pp = 1 + below(3)};
    if (place == Place::together) {  // the same eight ranks, cut in different ways
      g.tp = 1 << below(3);
      g.pp = 1 << below(4 - std::countr_zero(static_cast<unsigned>(g.tp)));
      g.dp = 8 / g.tp / g.pp;
    } else {
      g.offset = place == Place::disjoint ? world : below(world + 1);
    }
    if (below(3) == 0) g.vp = 2;
    world = std::max(world, g.end());
    s.layout.modules.emplace_back(std::string("m").append(std::to_string(m)), g);
    auto& stages = s.costs.stages.emplace_back();
    for (int i = 0; i < g.stages(); ++i)
      stages.push_back(
          {.forward = 1 + below(3) * 0.5, .backward = 2 + below(3) * 0.5, .buckets = {{.reduce = 0.25}}});
    s.trainable.push_back(below(4) != 0);
    for (StageCost& c : stages) c.trainable = s.trainable.back();
  }
  for (int m = 0; m + 1 < modules; ++m) s.edges.push_back({.src = m, .dst = modules - 1, .dst_port = m});
  if (modules == 3 && below(2)) s.edges.push_back({0, 1});
  const double there = below(3) * 0.25, back = below(3) * 0.25;
  s.costs.transfer.assign(stage_edges(s.layout, s.edges).size(), {there, back});
  return s;
}

}  // namespace mimo::testing
