#include "parallel/actions.h"

#include "tensor/error.h"

namespace mimo {
namespace {

using Kind = Action::Kind;

}  // namespace

Queue queue_of(Kind kind) {
  switch (kind) {
    case Kind::send_forward:
      return Queue::transfers_forward;
    case Kind::send_backward:
      return Queue::transfers_backward;
    case Kind::reduce:
    case Kind::step_reduce:
      return Queue::reductions;
    default:
      return Queue::compute;
  }
}

// One block of `waves` actions per node and direction, then per edge and direction.
StepActions::StepActions(const PlanGraph& g, int waves) : graph_(g), waves_(waves) {
  const int nodes = static_cast<int>(g.nodes().size()), edges = static_cast<int>(g.edges().size());
  forward_.assign(g.nodes().size(), -1), backward_ = forward_;
  sent_.assign(g.edges().size(), -1), returned_ = sent_;
  for (int n = 0; n < nodes; ++n) {
    const PlanGraph::Node& node = g.nodes()[n];
    const Action a{.module = node.module, .stage = node.stage, .lane = node.lane};
    const auto of = [&](Kind kind) {
      Action b = a;
      b.kind = kind;
      return add_waves(b);
    };
    forward_[n] = of(Kind::forward);
    if (g.has_backward(n)) backward_[n] = of(Kind::backward);
  }
  for (int e = 0; e < edges; ++e) {
    const PlanGraph::Edge& edge = g.edges()[e];
    const PlanGraph::Node& src = g.nodes()[edge.src];
    Action a{.kind = Kind::send_forward,
             .module = src.module,
             .stage = src.stage,
             .lane = src.lane,
             .edge = edge.stage_edge,
             .dst_lane = g.nodes()[edge.dst].lane};
    sent_[e] = add_waves(a);
    a.kind = Kind::send_backward;
    if (g.has_backward(edge.src)) returned_[e] = add_waves(a);
  }
  for (int w = 0; w < waves; ++w) {
    for (int e = 0; e < edges; ++e) {
      const PlanGraph::Edge& edge = g.edges()[e];
      wait(sent_[e] + w, forward_[edge.src] + w);
      wait(forward_[edge.dst] + w, sent_[e] + w);
      if (returned_[e] < 0) continue;
      wait(returned_[e] + w, backward_[edge.dst] + w);
      wait(backward_[edge.src] + w, returned_[e] + w);
    }
    for (int n = 0; n < nodes; ++n)
      if (backward_[n] >= 0) wait(backward_[n] + w, forward_[n] + w);
  }
  const int last = waves - 1;
  std::vector<int> before_end;
  for (int n = 0; n < nodes; ++n)
    before_end.push_back((backward_[n] >= 0 ? backward_[n] : forward_[n]) + last);
  for (const auto& [module, stage] : g.reduced_stages()) {
    const std::vector<Bucket>& buckets = g.buckets(module, stage);
    for (int b = 0; b < static_cast<int>(buckets.size()); ++b) {
      const int id = add({.kind = Kind::reduce, .module = module, .stage = stage, .bucket = b});
      if (b == 0) reduced_[{module, stage}] = id;
      for (int n : g.lanes(module, stage)) wait(id, backward_[n] + last, buckets[b].ready);
      before_end.push_back(id);
    }
  }
  step_reduce_ = add({.kind = Kind::step_reduce});
  for (int id : before_end) wait(step_reduce_, id);
  if (g.forward_only()) return;
  update_ = add({.kind = Kind::update});
  wait(update_, step_reduce_);
}

int StepActions::add(const Action& a) {
  all_.push_back(a);
  waits_.emplace_back();
  return size() - 1;
}

// The same action for every wave, in wave order.
int StepActions::add_waves(Action a) {
  const int first = size();
  for (a.wave = 0; a.wave < waves_; ++a.wave) {
    const int id = add(a);
    if (a.wave > 0) wait(id, id - 1);
  }
  return first;
}

int StepActions::id(const Action& a) const {
  int first = -1;
  switch (a.kind) {
    case Kind::forward:
      first = forward_[graph_.node(a)];
      break;
    case Kind::backward:
      first = backward_[graph_.node(a)];
      break;
    case Kind::send_forward:
      first = sent_[graph_.edge(a)];
      break;
    case Kind::send_backward:
      first = returned_[graph_.edge(a)];
      break;
    case Kind::reduce: {
      const auto it = reduced_.find({a.module, a.stage});
      MIMO_CHECK(it != reduced_.end(), "no gradients to reduce: " + graph_.describe(a));
      return it->second + a.bucket;
    }
    case Kind::step_reduce:
      return step_reduce_;
    case Kind::update:
      first = update_;
      MIMO_CHECK(first >= 0, "nothing to update");
      return first;
  }
  MIMO_CHECK(first >= 0 && a.wave >= 0 && a.wave < waves_, "no action of the step: " + graph_.describe(a));
  return first + a.wave;
}

}  // namespace mimo
