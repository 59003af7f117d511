// plan_step: a list scheduler. It appends, again and again, the action that can start first; ties are broken
// by a policy, and the waves that a node may have in flight are limited by its credit. The longest path to
// the loss gives every node's credit, so that a chain of equal stages becomes exactly 1F1B; encoders of
// unequal depth, colocated modules, virtual stages and edges that skip stages are the same case.
//
// It cannot get stuck: take the first wave with an action left. All waves before it are settled, so none of
// its forwards lacks credit, and it waits for nothing but actions of its own wave.
#include <algorithm>
#include <array>
#include <cmath>
#include <queue>
#include <tuple>

#include "parallel/simulate.h"
#include "tensor/error.h"

namespace mimo {
namespace {

using Kind = Action::Kind;

enum class Policy {
  backward_by_wave,
  backward_deepest,
  backward_shallowest,
  by_wave,
  forward_by_wave,
  forward_deepest
};
constexpr std::array<std::pair<Policy, const char*>, 6> kPolicies{{
    {Policy::backward_by_wave, "backward first, by wave"},
    {Policy::backward_deepest, "backward first, deepest stage first"},
    {Policy::backward_shallowest, "backward first, shallowest stage first"},
    {Policy::by_wave, "by wave"},
    {Policy::forward_by_wave, "forward first, by wave"},
    {Policy::forward_deepest, "forward first, deepest stage first"},
}};

// Smallest first, among compute actions that can start at the same time.
std::array<int, 3> priority(Policy policy, bool backward, int wave, int distance) {
  switch (policy) {
    case Policy::backward_by_wave:
      return {!backward, wave, distance};
    case Policy::backward_deepest:
      return {!backward, distance, wave};
    case Policy::backward_shallowest:
      return {!backward, -distance, wave};
    case Policy::by_wave:
      return {wave, !backward, distance};
    case Policy::forward_by_wave:
      return {backward, wave, distance};
    case Policy::forward_deepest:
      return {backward, distance, wave};
  }
  return {};
}

// Every action of a step as the simulation needs it.
struct Tasks {
  struct Task {
    Action action;
    int node = -1;  // of forward and backward
    int queue = 0;
    double duration = 0;
    int waits_for = 0;
    Ranks ranks;
    std::vector<StepActions::Wait> next;  // who waits for it, and for what share of it
  };
  std::vector<Task> all;

  Tasks(const PlanGraph& g, const StepActions& actions) {
    for (int id = 0; id < actions.size(); ++id) {
      const Action& a = actions[id];
      const bool computes = a.kind == Kind::forward || a.kind == Kind::backward;
      all.push_back({a,
                     computes ? g.node(a) : -1,
                     static_cast<int>(queue_of(a.kind)),
                     g.duration(a),
                     static_cast<int>(actions.waits(id).size()),
                     g.participants(a),
                     {}});
    }
    for (int id = 0; id < actions.size(); ++id)
      for (const StepActions::Wait& w : actions.waits(id))
        all[static_cast<size_t>(w.on)].next.push_back({id, w.share});
  }
};

// One event simulation: the order of all tasks under a policy and the nodes' credits.
std::vector<Action> list_schedule(const Tasks& tasks, const PlanGraph& graph, int waves, Policy policy,
                                  const std::vector<int>& credit) {
  const int nodes = static_cast<int>(graph.nodes().size());
  std::vector<std::vector<int>> settles(nodes);
  for (int n = 0; n < nodes; ++n)
    for (int by : graph.settled_by(n)) settles[by].push_back(n);
  std::vector<std::vector<size_t>> settlements(nodes, std::vector<size_t>(waves, 0));
  std::vector<int> in_flight(nodes), blocked(nodes, -1);  // blocked: a forward that lacks only credit

  const size_t count = tasks.all.size();
  std::vector<int> waits_for(count);
  std::vector<double> ready(count);
  for (size_t i = 0; i < count; ++i) waits_for[i] = tasks.all[i].waits_for;
  std::vector<std::array<double, kQueues>> free_at(graph.world(), std::array<double, kQueues>{});

  const auto start_of = [&](int id) {
    double start = ready[id];
    for (int r : tasks.all[id].ranks) start = std::max(start, free_at[r][tasks.all[id].queue]);
    return start;
  };
  // What a start time and the policy make of a task; transfers and reductions before computing.
  // Reductions in the order in which they could have started.
  using Key = std::tuple<double, std::array<int, 4>, double, int>;
  std::priority_queue<Key, std::vector<Key>, std::greater<>> heap;
  const auto push = [&](int id) {
    const Tasks::Task& t = tasks.all[id];
    std::array<int, 4> order{};
    if (t.node >= 0) {
      const auto p = priority(policy, t.action.kind == Kind::backward, t.action.wave, graph.distance(t.node));
      order = {1, p[0], p[1], p[2]};
    }
    heap.push({start_of(id), order, t.action.kind == Kind::reduce ? ready[id] : 0, id});
  };
  const auto offer = [&](int id) {
    const Tasks::Task& t = tasks.all[id];
    if (t.action.kind == Kind::forward && in_flight[t.node] >= credit[t.node])
      blocked[t.node] = id;
    else
      push(id);
  };
  for (size_t i = 0; i < count; ++i)
    if (waits_for[i] == 0) offer(static_cast<int>(i));

  std::vector<Action> order;
  order.reserve(count);
  while (!heap.empty()) {
    const auto [start, unused, also_unused, id] = heap.top();
    heap.pop();
    // Starts only move back, so an entry whose start still holds is the smallest of all.
    if (start < start_of(id)) {
      push(id);
      continue;
    }
    const Tasks::Task& t = tasks.all[id];
    const double end = start + t.duration;
    for (int r : t.ranks) free_at[r][t.queue] = end;
    order.push_back(t.action);
    if (t.action.kind == Kind::forward) ++in_flight[t.node];
    if (t.node >= 0 && (t.action.kind == Kind::backward || !graph.has_backward(t.node))) {
      for (int n : settles[t.node]) {
        if (++settlements[n][t.action.wave] < graph.settled_by(n).size()) continue;
        --in_flight[n];
        if (blocked[n] >= 0) push(blocked[n]);
        blocked[n] = -1;
      }
    }
    for (const auto& [next, share] : t.next) {
      ready[next] = std::max(ready[next], share == 1 ? end : start + share * t.duration);
      if (--waits_for[next] == 0) offer(next);
    }
  }
  MIMO_CHECK(order.size() == count, "the planner is stuck after " + std::to_string(order.size()) + " of " +
                                        std::to_string(count) + " actions");
  return order;
}

}  // namespace

Plan plan_step(const PlanGraph& graph, int waves, const PlanOptions& options) {
  MIMO_CHECK(waves >= 1, "a step of " + std::to_string(waves) + " waves");
  const StepActions actions(graph, waves);
  const Tasks tasks(graph, actions);
  const int nodes = static_cast<int>(graph.nodes().size());

  Plan best;
  double best_makespan = 0, best_memory = 0, least_memory = std::numeric_limits<double>::infinity();
  const auto attempt = [&](double scale) {
    std::vector<int> credit(nodes);
    for (int n = 0; n < nodes; ++n)
      credit[n] = static_cast<int>(
          std::clamp(std::floor(scale * (graph.distance(n) + 1)), 1.0, static_cast<double>(waves)));
    for (const auto& [policy, name] : kPolicies) {
      Plan plan{list_schedule(tasks, graph, waves, policy, credit), waves, {}, {}};
      const Timeline t = simulate(plan, graph, actions);
      const double memory = *std::max_element(t.memory.begin(), t.memory.end());
      least_memory = std::min(least_memory, memory);
      if (memory > options.memory) continue;
      if (!best.order.empty() && std::pair(best_makespan, best_memory) <= std::pair(t.makespan, memory))
        continue;
      best_makespan = t.makespan;
      best_memory = memory;
      best = std::move(plan);
      best.in_flight = t.in_flight;
      char text[32];
      std::snprintf(text, sizeof text, ", in flight x %g", scale);
      best.choice = name + std::string(text);
    }
  };
  for (double scale : {1.0, 1.5, 2.0, 3.0, static_cast<double>(waves)}) attempt(scale);
  // Less in flight than 1F1B only where memory demands it; a credit of 1 everywhere is the least there is.
  for (double scale : {0.5, 0.0})
    if (best.order.empty()) attempt(scale);
  if (best.order.empty())
    throw ConfigError("plan",
                      "no order of the step keeps within the memory of a rank: expected at most " +
                          std::to_string(options.memory) + ", found at least " + std::to_string(least_memory),
                      "use more pipeline stages or tensor parallel ranks, or smaller waves");
  return best;
}

}  // namespace mimo
