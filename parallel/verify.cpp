#include "parallel/verify.h"

#include <deque>
#include <map>
#include <stdexcept>

namespace mimo {
namespace {

using Kind = Action::Kind;

// Walks the order and remembers what is done.
class Walk {
 public:
  Walk(const Plan& plan, const PlanGraph& graph)
      : plan_(plan),
        graph_(graph),
        forward_(table(graph.nodes().size())),
        backward_(forward_),
        arrived_(table(graph.edges().size())),
        returned_(arrived_),
        in_flight_(graph.nodes().size()) {}

  void run() {
    if (plan_.waves < 1) fail("a plan of " + std::to_string(plan_.waves) + " waves");
    if (plan_.in_flight.size() != graph_.nodes().size()) fail("in_flight does not list every node");
    for (at_ = 0; at_ < plan_.order.size(); ++at_) step(plan_.order[at_]);
    finish();
  }

 private:
  using Table = std::vector<std::vector<char>>;
  Table table(size_t n) const { return Table(n, std::vector<char>(std::max(plan_.waves, 0))); }

  [[noreturn]] void fail(const std::string& what) const {
    std::string s("plan: ");
    if (at_ < plan_.order.size())
      s.append("action ")
          .append(std::to_string(at_))
          .append(" (")
          .append(graph_.describe(plan_.order[at_]))
          .append("): ");
    throw std::logic_error(s.append(what));
  }
  void need(bool done, const Action& before) const {
    if (!done) fail("comes before " + graph_.describe(before) + ", which it needs");
  }
  // Marks a wave of one kind of action done: once, and in wave order.
  void mark(std::vector<char>& waves, const Action& a) {
    if (a.wave < 0 || a.wave >= plan_.waves)
      fail("expected a wave of 0 to " + std::to_string(plan_.waves - 1) + ", found " +
           std::to_string(a.wave));
    if (waves[a.wave]) fail("is in the plan twice");
    if (a.wave > 0 && !waves[a.wave - 1]) fail("comes before the same of the wave before");
    waves[a.wave] = 1;
  }
  Action of_node(Kind kind, int n, int wave) const {
    const PlanGraph::Node& node = graph_.nodes()[n];
    return {.kind = kind, .module = node.module, .stage = node.stage, .lane = node.lane, .wave = wave};
  }
  Action of_edge(Kind kind, int e, int wave) const {
    const PlanGraph::Edge& edge = graph_.edges()[e];
    Action a = of_node(kind, edge.src, wave);
    a.edge = edge.stage_edge;
    a.dst_lane = graph_.nodes()[edge.dst].lane;
    return a;
  }

  void step(const Action& a) {
    if (step_reduced_ && a.kind != Kind::update) fail("comes after the step reduction");
    switch (a.kind) {
      case Kind::forward: {
        const int n = graph_.node(a);
        mark(forward_[n], a);
        for (int e : graph_.in(n)) need(arrived_[e][a.wave], of_edge(Kind::send_forward, e, a.wave));
        if (++in_flight_[n] > plan_.in_flight[n])
          fail("expected at most " + std::to_string(plan_.in_flight[n]) + " waves in flight, found " +
               std::to_string(in_flight_[n]));
        if (!graph_.has_backward(n)) settle(n, a.wave);
        break;
      }
      case Kind::backward: {
        const int n = graph_.node(a);
        if (!graph_.has_backward(n)) fail("nothing before it is trainable: it has no backward");
        mark(backward_[n], a);
        need(forward_[n][a.wave], of_node(Kind::forward, n, a.wave));
        for (int e : graph_.out(n)) need(returned_[e][a.wave], of_edge(Kind::send_backward, e, a.wave));
        settle(n, a.wave);
        break;
      }
      case Kind::send_forward: {
        const int n = checked_source(a);
        mark(arrived_[graph_.edge(a)], a);
        need(forward_[n][a.wave], of_node(Kind::forward, n, a.wave));
        break;
      }
      case Kind::send_backward: {
        if (!graph_.has_backward(checked_source(a)))
          fail("nothing before it is trainable: no gradient passes");
        mark(returned_[graph_.edge(a)], a);
        const int n = graph_.destination(a);
        need(backward_[n][a.wave], of_node(Kind::backward, n, a.wave));
        break;
      }
      case Kind::reduce:
        for (int n : graph_.lanes(a.module, a.stage)) {
          if (graph_.forward_only() || !graph_.nodes()[n].cost.trainable)
            fail("there are no gradients to reduce");
          need(backward_[n].back(), of_node(Kind::backward, n, plan_.waves - 1));
        }
        if (a.bucket < 0 || a.bucket >= static_cast<int>(graph_.buckets(a.module, a.stage).size()))
          fail("no such bucket");
        if (a.bucket != reduced_[{a.module, a.stage}]++) fail("its buckets are twice or out of order");
        break;
      case Kind::step_reduce:
        need_all();
        step_reduced_ = true;
        break;
      case Kind::update:
        if (graph_.forward_only()) fail("there is nothing to update");
        need(step_reduced_, {.kind = Kind::step_reduce});
        if (updated_) fail("is in the plan twice");
        updated_ = true;
        break;
    }
  }

  int checked_source(const Action& a) const {
    const int src = graph_.edges()[graph_.edge(a)].src;
    if (graph_.node(a) != src) fail("its module, stage and lane are not those of its edge's source");
    return src;
  }

  // One of those that node n settles has a wave less in flight when all that settle it are done.
  void settle(int n, int wave) {
    for (int m = 0; m < static_cast<int>(in_flight_.size()); ++m) {
      bool settles = false, all = true;
      for (int by : graph_.settled_by(m)) {
        settles = settles || by == n;
        all = all && (graph_.has_backward(by) ? backward_ : forward_)[by][wave];
      }
      if (settles && all) --in_flight_[m];
    }
  }

  void need_all() const {
    for (int n = 0; n < static_cast<int>(forward_.size()); ++n) {
      need(forward_[n].back(), of_node(Kind::forward, n, plan_.waves - 1));
      need(!graph_.has_backward(n) || backward_[n].back(), of_node(Kind::backward, n, plan_.waves - 1));
    }
    for (int e = 0; e < static_cast<int>(arrived_.size()); ++e) {
      need(arrived_[e].back(), of_edge(Kind::send_forward, e, plan_.waves - 1));
      need(!graph_.has_backward(graph_.edges()[e].src) || returned_[e].back(),
           of_edge(Kind::send_backward, e, plan_.waves - 1));
    }
    for (const auto& [module, stage] : graph_.reduced_stages())
      for (int b = 0; b < static_cast<int>(graph_.buckets(module, stage).size()); ++b) {
        const auto done = reduced_.find({module, stage});
        need(done != reduced_.end() && b < done->second,
             {.kind = Kind::reduce, .module = module, .stage = stage, .bucket = b});
      }
  }

  void finish() const {
    if (!step_reduced_) fail("lacks the step reduction");
    if (!updated_ && !graph_.forward_only()) fail("lacks the update");
  }

  const Plan& plan_;
  const PlanGraph& graph_;
  size_t at_ = 0;
  Table forward_, backward_, arrived_, returned_;
  std::vector<int> in_flight_;
  std::map<std::pair<int, int>, int> reduced_;  // buckets
  bool step_reduced_ = false, updated_ = false;
};

}  // namespace

std::vector<std::vector<Action>> rank_lists(const Plan& plan, const PlanGraph& graph) {
  std::vector<std::vector<Action>> lists(graph.world());
  for (const Action& a : plan.order)
    for (int r : graph.participants(a)) lists[r].push_back(a);
  return lists;
}

void run_unbuffered(const std::vector<std::vector<Action>>& lists, const PlanGraph& graph) {
  const auto world = static_cast<int>(lists.size());
  std::vector<size_t> at(world);
  const auto is_at = [&](int r, const Action& a) { return at[r] < lists[r].size() && lists[r][at[r]] == a; };
  // A rank is looked at whenever it has come to another action; the last to come to one sets it off.
  std::deque<int> moved;
  for (int r = 0; r < world; ++r) moved.push_back(r);
  while (!moved.empty()) {
    const int r = moved.front();
    moved.pop_front();
    if (at[r] == lists[r].size()) continue;
    const Action a = lists[r][at[r]];
    const Ranks ranks = graph.participants(a);
    bool all = true;
    for (int p : ranks) all = all && p < world && is_at(p, a);
    if (!all) continue;
    for (int p : ranks) {
      ++at[p];
      moved.push_back(p);
    }
  }
  std::string stuck;
  for (int r = 0; r < world; ++r) {
    if (at[r] == lists[r].size()) continue;
    const Action& a = lists[r][at[r]];
    stuck.append(stuck.empty() ? "" : "; ").append("rank ").append(std::to_string(r));
    stuck.append(" in ").append(graph.describe(a)).append(" waits for rank");
    for (int p : graph.participants(a))
      if (p >= world || !is_at(p, a)) stuck.append(" ").append(std::to_string(p));
  }
  if (!stuck.empty()) throw std::logic_error("plan: deadlock without buffering: " + stuck);
}

void verify(const Plan& plan, const PlanGraph& graph) {
  Walk(plan, graph).run();
  run_unbuffered(rank_lists(plan, graph), graph);
}

}  // namespace mimo
