#include "parallel/simulate.h"

#include <algorithm>

namespace mimo {
namespace {

using Kind = Action::Kind;

enum Stream { compute, transfers_forward, transfers_backward, reductions, streams };

Stream stream_of(Kind kind) {
  switch (kind) {
    case Kind::send_forward:
      return transfers_forward;
    case Kind::send_backward:
      return transfers_backward;
    case Kind::reduce:
    case Kind::step_reduce:
      return reductions;
    default:
      return compute;
  }
}

}  // namespace

Timeline simulate(const Plan& plan, const PlanGraph& graph) {
  const int nodes = static_cast<int>(graph.nodes().size()), edges = static_cast<int>(graph.edges().size());
  const auto table = [&](int n) {
    return std::vector<std::vector<double>>(n, std::vector<double>(plan.waves, 0));
  };
  // When each is complete.
  auto forward = table(nodes), backward = table(nodes), arrived = table(edges), returned = table(edges);
  double reduced = 0, step_reduced = 0, last = 0;

  std::vector<std::vector<double>> free_at(graph.world(), std::vector<double>(streams, 0));
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
    double start = 0;
    double* done = nullptr;
    switch (a.kind) {
      case Kind::forward: {
        const int n = graph.node(a);
        for (int e : graph.in(n)) start = std::max(start, arrived[e][a.wave]);
        done = &forward[n][a.wave];
        t.in_flight[n] = std::max(t.in_flight[n], ++in_flight[n]);
        for (int r : graph.nodes()[n].ranks) {
          kept[r] += graph.nodes()[n].cost.memory;
          t.memory[r] = std::max(t.memory[r], kept[r]);
        }
        break;
      }
      case Kind::backward: {
        const int n = graph.node(a);
        start = forward[n][a.wave];
        for (int e : graph.out(n)) start = std::max(start, returned[e][a.wave]);
        done = &backward[n][a.wave];
        break;
      }
      case Kind::send_forward:
        start = forward[graph.node(a)][a.wave];
        done = &arrived[graph.edge(a)][a.wave];
        break;
      case Kind::send_backward:
        start = backward[graph.destination(a)][a.wave];
        done = &returned[graph.edge(a)][a.wave];
        break;
      case Kind::reduce:
        for (int n : graph.lanes(a.module, a.stage)) start = std::max(start, backward[n].back());
        done = &reduced;
        break;
      case Kind::step_reduce:
        start = last;
        done = &step_reduced;
        break;
      case Kind::update:
        start = step_reduced;
        break;
    }

    const Ranks ranks = graph.participants(a);
    const Stream stream = stream_of(a.kind);
    for (int r : ranks) start = std::max(start, free_at[r][stream]);
    const double duration = graph.duration(a), end = start + duration;
    for (int r : ranks) free_at[r][stream] = end;
    if (done) *done = std::max(*done, end);
    last = std::max(last, end);
    t.spans.push_back({start, end});

    if (a.kind != Kind::forward && a.kind != Kind::backward) continue;
    for (int r : ranks) t.busy[r] += duration;
    const int n = graph.node(a);
    if (a.kind == Kind::forward && graph.has_backward(n)) continue;
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
