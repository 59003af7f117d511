#include "parallel/plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "parallel/route.h"
#include "tensor/error.h"

namespace mimo {
namespace {

using Kind = Action::Kind;

bool is_subset(const Ranks& part, const Ranks& of) {
  return std::all_of(part.begin(), part.end(),
                     [&](int r) { return std::find(of.begin(), of.end(), r) != of.end(); });
}

// Nodes with every source before its destinations; shorter than `nodes` where there is a cycle.
std::vector<int> topological_order(int nodes, const std::vector<PlanGraph::Edge>& edges,
                                   const std::vector<std::vector<int>>& out) {
  std::vector<int> missing(nodes), order;
  for (const PlanGraph::Edge& e : edges) ++missing[e.dst];
  for (int n = 0; n < nodes; ++n)
    if (missing[n] == 0) order.push_back(n);
  for (size_t i = 0; i < order.size(); ++i)
    for (int e : out[order[i]])
      if (--missing[edges[e].dst] == 0) order.push_back(edges[e].dst);
  return order;
}

}  // namespace

const char* name_of(Kind kind) {
  constexpr const char* names[] = {"forward", "backward",    "send_forward", "send_backward",
                                   "reduce",  "step_reduce", "update"};
  return names[static_cast<int>(kind)];
}

std::vector<StageEdge> stage_edges(const Layout& layout, const ModuleEdges& edges) {
  std::vector<StageEdge> out;
  const int modules = static_cast<int>(layout.modules.size());
  for (int m = 0; m < modules; ++m)
    for (int s = 0; s + 1 < layout.modules[m].second.stages(); ++s)
      out.push_back({m, s, m, s + 1, kStream, kStream});
  for (const ModuleEdge& e : edges) {
    MIMO_CHECK(e.src >= 0 && e.src < modules && e.dst >= 0 && e.dst < modules && e.src != e.dst,
               "edge " + std::to_string(e.src) + " -> " + std::to_string(e.dst) + " between " +
                   std::to_string(modules) + " modules");
    const int from = layout.modules[e.src].second.stages(), into = layout.modules[e.dst].second.stages();
    const int src_stage = e.src_stage < 0 ? from - 1 : e.src_stage;
    MIMO_CHECK(
        src_stage < from && e.dst_stage >= 0 && e.dst_stage < into && e.src_port >= 0 && e.dst_port >= 0,
        "an edge between stages or ports that do not exist");
    out.push_back({e.src, src_stage, e.dst, e.dst_stage, e.src_port, e.dst_port});
  }
  return out;
}

PlanGraph::PlanGraph(std::vector<std::string> modules, std::vector<Node> nodes, std::vector<Edge> edges,
                     bool forward_only, double step_reduce, double update)
    : modules_(std::move(modules)),
      nodes_(std::move(nodes)),
      edges_(std::move(edges)),
      forward_only_(forward_only),
      step_reduce_(step_reduce),
      update_(update) {
  const int count = static_cast<int>(nodes_.size());
  const auto cost_ok = [](double c) { return std::isfinite(c) && c >= 0; };
  MIMO_CHECK(count > 0, "a step without any stage");
  MIMO_CHECK(cost_ok(step_reduce) && cost_ok(update), "a cost that is negative or not finite");
  for (int n = 0; n < count; ++n) {
    const Node& node = nodes_[n];
    MIMO_CHECK(node.module >= 0 && node.module < static_cast<int>(modules_.size()),
               "node " + std::to_string(n) + " of module " + std::to_string(node.module) + " of " +
                   std::to_string(modules_.size()));
    const std::string name =
        modules_[node.module] + "." + std::to_string(node.stage) + " lane " + std::to_string(node.lane);
    MIMO_CHECK(!node.ranks.empty(), name + " has no ranks");
    for (int r : node.ranks) {
      MIMO_CHECK(r >= 0 && std::count(node.ranks.begin(), node.ranks.end(), r) == 1,
                 name + ": negative rank, or the same twice");
      world_ = std::max(world_, r + 1);
    }
    const StageCost& c = node.cost;
    MIMO_CHECK(cost_ok(c.forward) && cost_ok(c.backward) && cost_ok(c.memory),
               name + " has a cost that is negative or not finite");
    for (const Bucket& b : c.buckets)
      MIMO_CHECK(cost_ok(b.reduce) && cost_ok(b.ready) && b.ready <= 1,
                 name + " has a bucket whose cost or share is negative or not finite");
    std::vector<int>& lanes = by_stage_[{node.module, node.stage}];
    MIMO_CHECK(node.lane == static_cast<int>(lanes.size()), name + ": lanes must be listed from 0, in order");
    lanes.push_back(n);
  }

  in_.resize(count);
  out_.resize(count);
  for (int e = 0; e < static_cast<int>(edges_.size()); ++e) {
    Edge& edge = edges_[e];
    MIMO_CHECK(edge.src >= 0 && edge.src < count && edge.dst >= 0 && edge.dst < count,
               "edge " + std::to_string(e) + " between nodes that do not exist");
    MIMO_CHECK(cost_ok(edge.transfer.forward) && cost_ok(edge.transfer.backward),
               "edge " + std::to_string(e) + " has a cost that is negative or not finite");
    if (edge.stage_edge < 0) edge.stage_edge = e;
    const bool fresh =
        edge_index_.insert({{edge.stage_edge, nodes_[edge.src].lane, nodes_[edge.dst].lane}, e}).second;
    MIMO_CHECK(fresh, "edge " + std::to_string(edge.stage_edge) + " links the same lanes twice");
  }
  for (const auto& [key, e] : edge_index_) {  // in order of stage edge, then lanes
    out_[edges_[e].src].push_back(e);
    in_[edges_[e].dst].push_back(e);
  }

  const std::vector<int> order = topological_order(count, edges_, out_);
  MIMO_CHECK(static_cast<int>(order.size()) == count, "the edges between modules form a cycle");
  has_backward_.resize(count);
  for (int n : order) {
    bool any = nodes_[n].cost.trainable;
    for (int e : in_[n]) any = any || has_backward_[edges_[e].src];
    has_backward_[n] = any && !forward_only_;
  }
  distance_.resize(count);
  settled_by_.resize(count);
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const int n = *it;
    std::vector<int>& by = settled_by_[n];
    if (has_backward_[n] || out_[n].empty()) by = {n};
    for (int e : out_[n]) {
      const int next = edges_[e].dst;
      distance_[n] = std::max(distance_[n], distance_[next] + 1);
      if (has_backward_[n]) continue;
      if (has_backward_[next])
        by.push_back(next);
      else
        by.insert(by.end(), settled_by_[next].begin(), settled_by_[next].end());
    }
    std::sort(by.begin(), by.end());
    by.erase(std::unique(by.begin(), by.end()), by.end());
  }
}

double PlanGraph::duration(const Action& a) const {
  switch (a.kind) {
    case Kind::forward:
      return nodes_[node(a)].cost.forward;
    case Kind::backward:
      return nodes_[node(a)].cost.backward;
    case Kind::send_forward:
    case Kind::send_backward: {
      const Edge& e = edges_[edge(a)];
      const Ranks &src = nodes_[e.src].ranks, &dst = nodes_[e.dst].ranks;
      // A receiver that is among the senders copies.
      const bool local = a.kind == Kind::send_forward ? is_subset(dst, src) : is_subset(src, dst);
      if (local && !e.transfer.spread) return 0;
      return a.kind == Kind::send_forward ? e.transfer.forward : e.transfer.backward;
    }
    case Kind::reduce:
      return buckets(a.module, a.stage).at(static_cast<size_t>(a.bucket)).reduce;
    case Kind::step_reduce:
      return step_reduce_;
    case Kind::update:
      return update_;
  }
  return 0;
}

const std::vector<int>& PlanGraph::lanes(int module, int stage) const {
  const auto it = by_stage_.find({module, stage});
  MIMO_CHECK(it != by_stage_.end(),
             "no stage " + std::to_string(stage) + " of module " + std::to_string(module));
  return it->second;
}

int PlanGraph::node(const Action& a) const {
  const std::vector<int>& nodes = lanes(a.module, a.stage);
  MIMO_CHECK(a.lane >= 0 && a.lane < static_cast<int>(nodes.size()), "no lane " + std::to_string(a.lane));
  return nodes[a.lane];
}

int PlanGraph::edge(const Action& a) const {
  const auto it = edge_index_.find({a.edge, a.lane, a.dst_lane});
  MIMO_CHECK(it != edge_index_.end(), "no edge " + std::to_string(a.edge) + " from lane " +
                                          std::to_string(a.lane) + " to lane " + std::to_string(a.dst_lane));
  return it->second;
}

int PlanGraph::destination(const Action& a) const { return edges_[edge(a)].dst; }

const std::vector<Bucket>& PlanGraph::buckets(int module, int stage) const {
  return nodes_[lanes(module, stage)[0]].cost.buckets;
}

std::vector<std::pair<int, int>> PlanGraph::reduced_stages() const {
  std::vector<std::pair<int, int>> out;
  for (const auto& [stage, nodes] : by_stage_)
    if (!forward_only_ && nodes_[nodes[0]].cost.trainable) out.push_back(stage);
  return out;
}

Ranks PlanGraph::participants(const Action& a) const {
  Ranks out;
  const auto add = [&](int n) { out.insert(out.end(), nodes_[n].ranks.begin(), nodes_[n].ranks.end()); };
  switch (a.kind) {
    case Kind::forward:
    case Kind::backward:
      add(node(a));
      break;
    case Kind::send_forward:
    case Kind::send_backward:
      add(edges_[edge(a)].src);
      add(edges_[edge(a)].dst);
      break;
    case Kind::reduce:
      for (int n : lanes(a.module, a.stage)) add(n);
      break;
    case Kind::step_reduce:
    case Kind::update:
      out.resize(world_);
      std::iota(out.begin(), out.end(), 0);
      break;
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::string PlanGraph::describe(const Action& a) const {
  const auto named = [&](int module, int stage, int lane) {
    const std::string name =
        module >= 0 && module < static_cast<int>(modules_.size()) ? modules_[module] : "module?";
    std::string at = name + "." + std::to_string(stage);
    if (lane >= 0) at.append(" lane ").append(std::to_string(lane));
    return at;
  };
  std::string s(name_of(a.kind));
  if (a.kind == Kind::step_reduce || a.kind == Kind::update) return s;
  s.append(" ").append(named(a.module, a.stage, a.lane));
  if (a.kind == Kind::reduce) return s.append(" bucket ").append(std::to_string(a.bucket));
  if (const auto it = edge_index_.find({a.edge, a.lane, a.dst_lane}); it != edge_index_.end()) {
    const Node& to = nodes_[edges_[it->second].dst];
    s.append(a.kind == Kind::send_forward ? " -> " : " <- ").append(named(to.module, to.stage, to.lane));
  }
  return s.append(" wave ").append(std::to_string(a.wave));
}

PlanGraph step_graph(const Layout& layout, const ModuleEdges& module_edges, const Costs& costs,
                     bool forward_only) {
  double largest = std::max({costs.step_reduce, costs.update, StageCost{}.forward, StageCost{}.backward});
  if (!costs.stages.empty()) largest = std::max(costs.step_reduce, costs.update);
  for (const TransferCost& c : costs.transfer) largest = std::max({largest, c.forward, c.backward});
  for (const auto& module : costs.stages)
    for (const StageCost& c : module) largest = std::max({largest, c.forward, c.backward});
  int exponent = 0;
  std::frexp(largest, &exponent);  // largest < 2^exponent
  const double grain = std::ldexp(1.0, exponent - 20);
  const auto rounded = [&](double c) { return std::round(c / grain) * grain; };

  std::vector<std::string> names;
  std::vector<PlanGraph::Node> nodes;
  std::map<std::pair<int, int>, int> first;  // (module, stage): its lane 0
  for (int m = 0; m < static_cast<int>(layout.modules.size()); ++m) {
    const auto& [name, grid] = layout.modules[m];
    names.push_back(name);
    MIMO_CHECK(costs.stages.empty() || (m < static_cast<int>(costs.stages.size()) &&
                                        static_cast<int>(costs.stages[m].size()) == grid.stages()),
               "costs do not list the " + std::to_string(grid.stages()) + " stages of " + name);
    for (int s = 0; s < grid.stages(); ++s) {
      first[{m, s}] = static_cast<int>(nodes.size());
      StageCost c = costs.stages.empty() ? StageCost{} : costs.stages[m][s];
      c.forward = rounded(c.forward);
      c.backward = rounded(c.backward);
      for (Bucket& b : c.buckets) b.reduce = rounded(b.reduce), b.ready = std::round(b.ready * 1024) / 1024;
      for (int l = 0; l < grid.dp; ++l) nodes.push_back({m, s, l, grid.block(l, s), c});
    }
  }

  std::vector<PlanGraph::Edge> edges;
  const std::vector<StageEdge> all = stage_edges(layout, module_edges);
  MIMO_CHECK(costs.transfer.empty() || costs.transfer.size() == all.size(),
             "costs of " + std::to_string(costs.transfer.size()) + " transfers for " +
                 std::to_string(all.size()) + " stage edges");
  for (int i = 0; i < static_cast<int>(all.size()); ++i) {
    const StageEdge& e = all[i];
    TransferCost transfer;
    if (!costs.transfer.empty())
      transfer = {rounded(costs.transfer[i].forward), rounded(costs.transfer[i].backward),
                  costs.transfer[i].spread};
    // Within a module the deals are the same, so that lane_pairs gives every lane itself.
    const int src_lanes = layout.modules[e.src_module].second.dp;
    for (const auto& [a, b] : lane_pairs(src_lanes, layout.modules[e.dst_module].second.dp))
      edges.push_back(
          {first[{e.src_module, e.src_stage}] + a, first[{e.dst_module, e.dst_stage}] + b, transfer, i});
  }
  return PlanGraph(std::move(names), std::move(nodes), std::move(edges), forward_only,
                   rounded(costs.step_reduce), rounded(costs.update));
}

Plan restrict_to(const Plan& plan, int rank, const PlanGraph& graph) {
  Plan mine = plan;
  std::erase_if(mine.order, [&](const Action& a) {
    const Ranks ranks = graph.participants(a);
    return !std::binary_search(ranks.begin(), ranks.end(), rank);
  });
  return mine;
}

}  // namespace mimo
