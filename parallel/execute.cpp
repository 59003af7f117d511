#include "parallel/execute.h"

#include <algorithm>
#include <optional>

#include "tensor/error.h"

namespace mimo {
namespace {

using Kind = Action::Kind;

int index_of(const std::vector<int>& list, int value) {
  return static_cast<int>(std::find(list.begin(), list.end(), value) - list.begin());
}

Tensor ones(DType dtype) {
  const Tensor one = Tensor::of<double>({1.0});
  if (dtype == DType::f64) return one;
  const Tensor single = Tensor::of<float>({1.0f});
  return dtype == DType::f32 ? single : cast(single, dtype);
}

}  // namespace

Executor::Executor(const PlanGraph& graph, const Plan& plan, std::vector<EdgeSpec> edges, int rank,
                   const std::map<std::pair<int, int>, Stage*>& stages, Communicator& transfers_forward,
                   Communicator& transfers_backward)
    : graph_(graph),
      plan_(restrict_to(plan, rank, graph)),
      edges_(std::move(edges)),
      rank_(rank),
      transfers_forward_(transfers_forward),
      transfers_backward_(transfers_backward),
      carries_gradient_(edges_.size()) {
  for (const PlanGraph::Edge& e : graph.edges()) {
    MIMO_CHECK(e.stage_edge < static_cast<int>(edges_.size()),
               "stage edge " + std::to_string(e.stage_edge) + " has no EdgeSpec");
    carries_gradient_[e.stage_edge] = graph.has_backward(e.src);
  }
  for (int n = 0; n < static_cast<int>(graph.nodes().size()); ++n) {
    const PlanGraph::Node& node = graph.nodes()[n];
    if (std::find(node.ranks.begin(), node.ranks.end(), rank) == node.ranks.end()) continue;
    const auto stage = stages.find({node.module, node.stage});
    MIMO_CHECK(stage != stages.end(), "rank " + std::to_string(rank) + " lacks stage " +
                                          std::to_string(node.stage) + " of " + graph.modules()[node.module]);
    Local local;
    local.stage = stage->second;
    for (int e : graph.in(n)) {
      const int edge = graph.edges()[e].stage_edge;
      if (local.in.empty() || local.in.back() != edge) local.in.push_back(edge);
      local.transfers_in += carries_gradient_[edge];
    }
    for (int e : graph.out(n)) {
      const int edge = graph.edges()[e].stage_edge;
      if (local.out.empty() || local.out.back() != edge) local.out.push_back(edge);
      ++local.transfers_out;
    }
    for (const auto& [other, l] : local_)
      MIMO_CHECK(l.stage != local.stage, "a rank has two lanes of " + graph.modules()[node.module]);
    local_.emplace(n, std::move(local));
  }
}

Statistics Executor::step(std::span<const Wave> waves, std::span<const SampleSizes> sizes,
                          const Batches& batches, const StepHooks& hooks, Observer& observer) {
  MIMO_CHECK(
      static_cast<int>(waves.size()) == plan_.waves,
      "a plan of " + std::to_string(plan_.waves) + " waves for a step of " + std::to_string(waves.size()));
  waves_ = waves;
  sizes_ = sizes;
  batches_ = &batches;
  observer_ = &observer;
  statistics_ = {};
  held_.clear();
  pending_.clear();
  bind_routes();
  for (const Action& a : plan_.order) {
    progress();
    switch (a.kind) {
      case Kind::forward:
        forward(a);
        continue;
      case Kind::backward:
        backward(a);
        continue;
      default:
        break;
    }
    observer.begin(a);
    if (a.kind == Kind::reduce) {
      if (hooks.reduce) hooks.reduce(a.module, a.stage);
    } else if (a.kind == Kind::step_reduce) {
      statistics_.settle();
      if (hooks.step_reduce) hooks.step_reduce(statistics_);
    } else if (a.kind == Kind::update) {
      if (hooks.update) hooks.update();
    } else {
      transfer(a);
    }
    observer.end(a);
  }
  wait_for([](const Pending&) { return true; });
  MIMO_CHECK(held_.empty(), "a step left activations behind");
  statistics_.settle();
  return statistics_;
}

// Sizes are known to all ranks: what crosses every edge in every wave is computed, not negotiated.
void Executor::bind_routes() {
  routes_.clear();
  std::vector<bool> bound(edges_.size());
  for (const PlanGraph::Edge& e : graph_.edges()) {
    if ((!mine(e.src) && !mine(e.dst)) || bound[e.stage_edge]) continue;
    bound[e.stage_edge] = true;
    const PlanGraph::Node &src = graph_.nodes()[e.src], &dst = graph_.nodes()[e.dst];
    for (int w = 0; w < plan_.waves; ++w) {
      auto& routes = routes_[{e.stage_edge, w}];
      routes = route(waves_[w], src.module, dst.module,
                     [&](int64_t sample) { return edges_[e.stage_edge].rows(sizes_[sample]); });
      for (const Route& r : routes) {
        const Action a{.kind = Kind::send_forward,
                       .module = src.module,
                       .stage = src.stage,
                       .lane = r.src_lane,
                       .wave = w,
                       .edge = e.stage_edge,
                       .dst_lane = r.dst_lane};
        graph_.edge(a);  // throws where the plan does not link these lanes
      }
    }
  }
}

int64_t Executor::rows(int stage_edge, int wave, bool source, int lane) const {
  int64_t n = 0;
  for (const Route& r : routes_.at({stage_edge, wave}))
    if ((source ? r.src_lane : r.dst_lane) == lane) n += r.rows;
  return n;
}

void Executor::progress() {
  std::erase_if(pending_, [](Pending& p) { return p.work.test(); });
}

void Executor::wait_for(const std::function<bool(const Pending&)>& wanted) {
  for (Pending& p : pending_) {
    if (!wanted(p) || p.work.test()) continue;
    observer_->begin(p.action);
    p.work.wait();
    observer_->end(p.action);
  }
  std::erase_if(pending_, [&](const Pending& p) { return wanted(p); });
}

void Executor::forward(const Action& a) {
  const int n = graph_.node(a);
  const Local& local = local_.at(n);
  // No more outputs alive than the plan counts on, however slow their receivers are.
  wait_for([&](const Pending& p) {
    return p.action.kind == Kind::send_forward &&
           ((p.to == n && p.action.wave == a.wave) ||
            (p.from == n && p.action.wave <= a.wave - plan_.in_flight[n]));
  });
  observer_->begin(a);
  const MemoryLabel label(graph_.modules()[a.module]);
  Held& held = held_[{n, a.wave}];
  held.inputs.resize(local.in.size());
  held.leaves.resize(local.in.size());
  for (size_t i = 0; i < local.in.size(); ++i) {
    const EdgeSpec& edge = edges_[local.in[i]];
    Tensor& x = held.inputs[i];
    if (!x.defined()) x = Tensor::empty({0, edge.width}, edge.dtype);
    MIMO_CHECK(x.dim(0) == rows(local.in[i], a.wave, false, a.lane), "an input is not complete");
    if (!carries_gradient_[local.in[i]]) continue;
    x = leaf(x);
    held.leaves[i] = x.node();
  }
  Tensor y;
  {
    std::optional<NoGrad> no_grad;
    if (!graph_.has_backward(n)) no_grad.emplace();
    y = local.stage->forward(held.inputs, (*batches_)(a.module, a.wave), statistics_);
  }
  held.inputs.clear();
  for (int e : local.out) {
    const Dims expected{rows(e, a.wave, true, a.lane), edges_[e].width};
    MIMO_CHECK(y.shape() == expected && y.dtype() == edges_[e].dtype,
               graph_.describe(a) + ": expected an output " + to_string(expected) + " " +
                   name_of(edges_[e].dtype) + ", found " + to_string(y.shape()) + " " + name_of(y.dtype()));
  }
  if (local.out.empty() && graph_.has_backward(n)) {
    MIMO_CHECK(y.shape() == Dims{1},
               graph_.describe(a) + ": expected the loss sum [1], found " + to_string(y.shape()));
    held.gradients = {ones(y.dtype())};
  }
  held.node = y.node();
  held.transfers_left = local.transfers_out;
  if (!local.out.empty()) held.output = contiguous(y);
  if (local.out.empty() && !graph_.has_backward(n)) held_.erase({n, a.wave});
  observer_->end(a);
}

void Executor::backward(const Action& a) {
  const int n = graph_.node(a);
  const Local& local = local_.at(n);
  wait_for([&](const Pending& p) {
    return p.action.kind == Kind::send_backward && p.to == n && p.action.wave == a.wave;
  });
  observer_->begin(a);
  const MemoryLabel label(graph_.modules()[a.module]);
  Held& held = held_.at({n, a.wave});
  held.gradients.resize(std::max<size_t>(local.out.size(), 1));
  NodePtr node = std::move(held.node);
  std::vector<Tensor> gradients = std::move(held.gradients);
  held.gradients.clear();
  for (size_t i = 0; i < gradients.size(); ++i) {
    Tensor g = std::move(gradients[i]);
    if (!g.defined()) g = Tensor::empty({0, edges_[local.out[i]].width}, edges_[local.out[i]].dtype);
    if (!local.out.empty())
      MIMO_CHECK(g.dim(0) == rows(local.out[i], a.wave, true, a.lane), "a gradient is not complete");
    // The sum over consumers is taken in the order of edges.
    if (!node) continue;
    if (i + 1 < gradients.size())
      accumulate(node, g);
    else
      mimo::backward(g.with_node(node), g);
  }
  node.reset();
  held.input_gradients.resize(local.in.size());
  for (size_t i = 0; i < local.in.size(); ++i) {
    if (!held.leaves[i]) continue;
    const EdgeSpec& edge = edges_[local.in[i]];
    const Dims shape{rows(local.in[i], a.wave, false, a.lane), edge.width};
    const Tensor& g = held.leaves[i]->grad;
    MIMO_CHECK(!g.defined() || (g.shape() == shape && g.dtype() == edge.dtype),
               graph_.describe(a) + ": expected the gradient of an input " + to_string(shape) + " " +
                   name_of(edge.dtype) + ", found " + to_string(g.shape()) + " " + name_of(g.dtype()));
    held.input_gradients[i] = g.defined() ? contiguous(g) : Tensor::zeros(shape, edge.dtype);
  }
  held.leaves.clear();
  held.transfers_left = local.transfers_in;
  if (held.transfers_left == 0) held_.erase({n, a.wave});
  observer_->end(a);
}

void Executor::transfer(const Action& a) {
  const bool forward = a.kind == Kind::send_forward;
  const PlanGraph::Edge& e = graph_.edges()[graph_.edge(a)];
  const int from = forward ? e.src : e.dst, to = forward ? e.dst : e.src;
  const Ranks &from_ranks = graph_.nodes()[from].ranks, &to_ranks = graph_.nodes()[to].ranks;
  const EdgeSpec& edge = edges_[e.stage_edge];

  Tensor have;             // what the source has, if that is here
  Tensor* into = nullptr;  // where the destination wants it, if that is here
  int64_t into_rows = 0;
  if (mine(from)) {
    const Held& held = held_.at({from, a.wave});
    have = forward ? held.output : held.input_gradients[index_of(local_.at(from).in, e.stage_edge)];
  }
  if (mine(to)) {
    const Local& local = local_.at(to);
    Held& held = held_[{to, a.wave}];
    held.inputs.resize(forward ? local.in.size() : 0);
    held.gradients.resize(forward ? 0 : local.out.size());
    into = forward ? &held.inputs[index_of(local.in, e.stage_edge)]
                   : &held.gradients[index_of(local.out, e.stage_edge)];
    into_rows = rows(e.stage_edge, a.wave, !forward, forward ? a.dst_lane : a.lane);
  }

  std::vector<P2P> messages;
  for (const Route& r : routes_.at({e.stage_edge, a.wave})) {
    if (r.src_lane != a.lane || r.dst_lane != a.dst_lane) continue;
    const int64_t from_begin = forward ? r.src_begin : r.dst_begin;
    const int64_t to_begin = forward ? r.dst_begin : r.src_begin;
    for (int j = 0; j < static_cast<int>(to_ranks.size()); ++j) {
      const int giver = sender(from_ranks, to_ranks, j), taker = to_ranks[j];
      if (giver != rank_ && taker != rank_) continue;
      const bool all = r.rows == into_rows && have.defined() && r.rows == have.dim(0);
      if (giver == rank_ && taker == rank_ && all) {
        *into = have;
        continue;
      }
      if (taker == rank_ && !into->defined()) {
        const MemoryLabel label(graph_.modules()[graph_.nodes()[to].module]);
        *into = Tensor::empty({into_rows, edge.width}, edge.dtype);
      }
      if (giver == rank_ && taker == rank_)
        copy_into(into->slice(to_begin, to_begin + r.rows), have.slice(from_begin, from_begin + r.rows));
      else if (giver == rank_)
        messages.push_back({true, taker, have.slice(from_begin, from_begin + r.rows)});
      else
        messages.push_back({false, giver, into->slice(to_begin, to_begin + r.rows)});
    }
  }
  if (!messages.empty()) {
    Communicator& c = forward ? transfers_forward_ : transfers_backward_;
    pending_.push_back({c.exchange(messages, current_stream()), a, from, to});
  }

  if (!mine(from)) return;
  Held& held = held_.at({from, a.wave});
  if (--held.transfers_left > 0) return;
  held.output = Tensor();
  held.input_gradients.clear();
  // Forward: a backward to come still needs the graph; backward: that was the last of the wave.
  if (!forward || !graph_.has_backward(from)) held_.erase({from, a.wave});
}

}  // namespace mimo
