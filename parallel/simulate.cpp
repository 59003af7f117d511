#include "parallel/simulate.h"

#include <algorithm>
#include <array>

namespace mimo {
namespace {

using Kind = Action::Kind;

}  // namespace

Timeline simulate(const Plan& plan, const PlanGraph& graph) {
  return simulate(plan, graph, StepActions(graph, plan.waves));
}

Timeline simulate(const Plan& plan, const PlanGraph& graph, const StepActions& actions) {
  const int nodes = static_cast<int>(graph.nodes().size());
  std::vector<Timeline::Span> done(static_cast<size_t>(actions.size()));  // [id]
  double last = 0;
  std::vector<std::array<double, kQueues>> free_at(graph.world(), std::array<double, kQueues>{});
  std::vector<std::vector<int>> settles(nodes);
  for (int n = 0; n < nodes; ++n)
    for (int by : graph.settled_by(n)) settles[by].push_back(n);
  std::vector<std::vector<size_t>> settlements(nodes, std::vector<size_t>(plan.waves, 0));

  Timeline t;
  t.busy.resize(graph.world());
  t.in_flight.resize(nodes);
  t.memory.resize(graph.world());
  std::vector<int> in_flight(nodes);
  std::vector<double> kept(graph.world());

  for (const Action& a : plan.order) {
    const int id = actions.id(a);
    const size_t queue = static_cast<size_t>(queue_of(a.kind));
    const Ranks ranks = graph.participants(a);
    double start = 0;
    for (const auto& [on, share] : actions.waits(id)) {
      const Timeline::Span& s = done[static_cast<size_t>(on)];
      start = std::max(start, share == 1 ? s.end : s.start + share * (s.end - s.start));
    }
    for (int r : ranks) start = std::max(start, free_at[r][queue]);
    const double duration = graph.duration(a), end = start + duration;
    for (int r : ranks) free_at[r][queue] = end;
    done[static_cast<size_t>(id)] = {start, end};
    last = std::max(last, end);
    t.spans.push_back({start, end});

    if (a.kind != Kind::forward && a.kind != Kind::backward) continue;
    for (int r : ranks) t.busy[r] += duration;
    const int n = graph.node(a);
    if (a.kind == Kind::forward) {
      t.in_flight[n] = std::max(t.in_flight[n], ++in_flight[n]);
      for (int r : ranks) {
        kept[r] += graph.nodes()[n].cost.memory;
        t.memory[r] = std::max(t.memory[r], kept[r]);
      }
      if (graph.has_backward(n)) continue;
    }
    for (int m : settles[n]) {
      if (++settlements[m][a.wave] < graph.settled_by(m).size()) continue;
      --in_flight[m];
      for (int r : graph.nodes()[m].ranks) kept[r] -= graph.nodes()[m].cost.memory;
    }
  }
  t.makespan = last;
  double busy = 0;
  for (double b : t.busy) busy += b;
  t.bubbles = last > 0 ? 1 - busy / (last * graph.world()) : 0;
  return t;
}

}  // namespace mimo
