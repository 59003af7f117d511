#include "parallel/execute.h"

#include <algorithm>
#include <optional>

#include "tensor/error.h"

namespace mimo {
namespace {

using Kind = Action::Kind;

size_t index_of(const std::vector<int>& list, int value) {
  return static_cast<size_t>(std::find(list.begin(), list.end(), value) - list.begin());
}

void insert(std::vector<int>& sorted, int value) {
  const auto at = std::lower_bound(sorted.begin(), sorted.end(), value);
  if (at == sorted.end() || *at != value) sorted.insert(at, value);
}

Tensor scalar(double value, DType dtype) {
  const Tensor exact = Tensor::of<double>({value});
  if (dtype == DType::f64) return exact;
  const Tensor single = Tensor::of<float>({static_cast<float>(value)});
  return dtype == DType::f32 ? single : cast(single, dtype);
}

void expect(const Tensor& t, const Dims& shape, DType dtype, const std::string& what) {
  MIMO_CHECK(t.shape() == shape && t.dtype() == dtype, what + ": expected " + to_string(shape) + " " +
                                                           name_of(dtype) + ", found " +
                                                           to_string(t.shape()) + " " + name_of(t.dtype()));
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
      insert(local.inputs, edges_[edge].edge.dst_port);
      local.transfers_in += carries_gradient_[edge];
    }
    for (int e : graph.out(n)) {
      const int edge = graph.edges()[e].stage_edge;
      if (local.out.empty() || local.out.back() != edge) local.out.push_back(edge);
      insert(local.outputs, edges_[edge].edge.src_port);
      ++local.transfers_out;
    }
    for (const auto& [other, l] : local_)
      MIMO_CHECK(l.stage != local.stage, "a rank has two lanes of " + graph.modules()[node.module]);
    local_.emplace(n, std::move(local));
  }
  for (const Action& a : plan_.order)
    if (a.kind == Kind::reduce) reductions_.push_back(a);
}

void Executor::step(std::span<const Wave> waves, std::span<const SampleSizes> sizes, Sums& sums,
                    StepHooks& hooks, Observer& observer, double scale) {
  MIMO_CHECK(
      static_cast<int>(waves.size()) == plan_.waves,
      "a plan of " + std::to_string(plan_.waves) + " waves for a step of " + std::to_string(waves.size()));
  waves_ = waves;
  sizes_ = sizes;
  sums_ = &sums;
  hooks_ = &hooks;
  observer_ = &observer;
  scale_ = scale;
  held_.clear();
  pending_.clear();
  reducing_.clear();
  come_to_.clear();
  reduced_ = 0;
  bind_crossings();
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
    if (a.kind == Kind::step_reduce) wait_for(reducing_, [](const Pending&) { return true; });
    observer.begin(a);
    if (a.kind == Kind::reduce) {
      reduce_ready();
    } else if (a.kind == Kind::step_reduce) {
      sums.settle();
      hooks.step_reduce(sums);
    } else if (a.kind == Kind::update) {
      hooks.update();
    } else {
      transfer(a);
    }
    observer.end(a);
  }
  wait_for(pending_, [](const Pending&) { return true; });
  MIMO_CHECK(held_.empty(), "a step left activations behind");
  sums.settle();
}

// Sizes are known to all ranks: what crosses every edge in every wave is computed, not negotiated.
void Executor::bind_crossings() {
  crossings_.clear();
  std::vector<bool> bound(edges_.size());
  for (const PlanGraph::Edge& e : graph_.edges()) {
    if ((!mine(e.src) && !mine(e.dst)) || bound[e.stage_edge]) continue;
    bound[e.stage_edge] = true;
    const EdgeSpec& edge = edges_[e.stage_edge];
    const PlanGraph::Node &src = graph_.nodes()[e.src], &dst = graph_.nodes()[e.dst];
    for (int w = 0; w < plan_.waves; ++w) {
      Crossing& c = crossings_[{e.stage_edge, w}];
      c.routes =
          route(waves_[w], src.module, dst.module, [&](int64_t sample) { return edge.rows(sizes_[sample]); });
      for (const Route& r : c.routes) {
        const Action a{.kind = Kind::send_forward,
                       .module = src.module,
                       .stage = src.stage,
                       .lane = r.src_lane,
                       .wave = w,
                       .edge = e.stage_edge,
                       .dst_lane = r.dst_lane};
        graph_.edge(a);  // throws where the plan does not link these lanes
      }
      c.src = lay(edge, true, w);
      c.dst = lay(edge, false, w);
    }
  }
}

// How the rows of every lane at one end of an edge lie.
std::vector<Spread> Executor::lay(const EdgeSpec& edge, bool source, int wave) const {
  const int module = source ? edge.edge.src_module : edge.edge.dst_module;
  const int stage = source ? edge.edge.src_stage : edge.edge.dst_stage;
  const EdgeSpec::SpreadOf& spread_of = source ? edge.src_spread : edge.dst_spread;
  const std::vector<int>& nodes = graph_.lanes(module, stage);
  std::vector<int64_t> rows(nodes.size());
  std::vector<std::vector<SampleSizes>> samples(nodes.size());
  const Wave& w = waves_[wave];
  for (size_t i = 0; i < w.samples.size(); ++i) {
    const SampleSizes& s = sizes_[w.samples[i]];
    const int lane = w.lane.at(module)[i];
    rows.at(lane) += edge.rows(s);
    if (spread_of) samples[lane].push_back(s);
  }
  std::vector<Spread> out;
  for (size_t lane = 0; lane < nodes.size(); ++lane) {
    out.push_back(spread_of ? spread_of(samples[lane]) : one_part(rows[lane]));
    check_spread(out.back(), rows[lane], static_cast<int>(graph_.nodes()[nodes[lane]].ranks.size()));
  }
  return out;
}

// That this rank has at one end of an edge.
int64_t Executor::rows(int stage_edge, int wave, bool source, int node) const {
  const Crossing& c = crossings_.at({stage_edge, wave});
  const PlanGraph::Node& n = graph_.nodes()[node];
  const Spread& spread = (source ? c.src : c.dst)[n.lane];
  const auto at = std::find(n.ranks.begin(), n.ranks.end(), rank_) - n.ranks.begin();
  return rows_of(spread[part_of(static_cast<int>(at), static_cast<int>(n.ranks.size()), spread)]);
}

void Executor::progress() {
  for (std::vector<Pending>* list : {&pending_, &reducing_})
    std::erase_if(*list, [this](Pending& p) {
      if (!p.work.test()) return false;
      observer_->completed(p.action);
      return true;
    });
}

void Executor::wait_for(std::vector<Pending>& list, const std::function<bool(const Pending&)>& wanted) {
  for (Pending& p : list) {
    if (!wanted(p)) continue;
    if (!p.work.test()) {
      observer_->begin(p.action);
      p.work.wait();
      observer_->end(p.action);
    }
    observer_->completed(p.action);
  }
  std::erase_if(list, [&](const Pending& p) { return wanted(p); });
}

// Starts what can be: the order is that of the plan, on all ranks.
void Executor::reduce_ready() {
  for (; reduced_ < reductions_.size(); ++reduced_) {
    const Action& a = reductions_[reduced_];
    const auto part = come_to_.find({a.module, a.stage});
    if (part == come_to_.end() ||
        part->second > graph_.buckets(a.module, a.stage)[static_cast<size_t>(a.bucket)].part)
      return;
    observer_->started(a);
    reducing_.push_back({hooks_->reduce(a.module, a.stage, a.bucket), a});
  }
}

void Executor::forward(const Action& a) {
  const int n = graph_.node(a);
  const Local& local = local_.at(n);
  // No more outputs alive than the plan counts on, however slow their receivers are.
  wait_for(pending_, [&](const Pending& p) {
    return p.action.kind == Kind::send_forward &&
           ((p.to == n && p.action.wave == a.wave) ||
            (p.from == n && p.action.wave <= a.wave - plan_.in_flight[n]));
  });
  observer_->begin(a);
  const MemoryLabel label(graph_.modules()[a.module]);
  Held& held = held_[{n, a.wave}];
  const std::vector<Tensor> x = inputs(local, held, a);
  held.arrived.clear();
  held.step = std::make_unique<Step>(*sums_, scale_);
  std::vector<Tensor> y;
  {
    std::optional<NoGrad> no_grad;
    if (!graph_.has_backward(n)) no_grad.emplace();
    y = local.stage->forward(x, hooks_->batch(a.module, a.wave), *held.step);
  }
  MIMO_CHECK(y.size() == local.outputs.size(), graph_.describe(a) + ": expected " +
                                                   std::to_string(local.outputs.size()) + " outputs, found " +
                                                   std::to_string(y.size()));
  for (int e : local.out) {
    const EdgeSpec& edge = edges_[e];
    expect(y[index_of(local.outputs, edge.edge.src_port)], {rows(e, a.wave, true, n), edge.width}, edge.dtype,
           graph_.describe(a) + ", its output");
  }
  for (const Tensor& loss : held.step->losses())
    MIMO_CHECK(loss.shape() == Dims{1},
               graph_.describe(a) + ": expected a loss sum [1], found " + to_string(loss.shape()));
  held.transfers_left = local.transfers_out;
  for (const Tensor& t : y) {
    held.nodes.push_back(t.node());
    held.outputs.push_back(contiguous(t).detach());
  }
  if (local.out.empty() && !graph_.has_backward(n)) held_.erase({n, a.wave});
  observer_->end(a);
}

// One tensor for each input port: what came along its edge, or the sum over its edges, in their order.
std::vector<Tensor> Executor::inputs(const Local& local, Held& held, const Action& a) const {
  std::vector<Tensor> x(local.inputs.size());
  std::vector<bool> carries(local.inputs.size()), owned(local.inputs.size());
  held.arrived.resize(local.in.size());
  for (size_t i = 0; i < local.in.size(); ++i) {
    const EdgeSpec& edge = edges_[local.in[i]];
    const size_t port = index_of(local.inputs, edge.edge.dst_port);
    Tensor& t = held.arrived[i];
    if (!t.defined()) t = Tensor::empty({0, edge.width}, edge.dtype);
    MIMO_CHECK(t.dim(0) == rows(local.in[i], a.wave, false, graph_.node(a)), "an input is not complete");
    carries[port] = carries[port] || carries_gradient_[local.in[i]];
    if (!x[port].defined()) {
      x[port] = t;
      continue;
    }
    expect(t, x[port].shape(), x[port].dtype(), graph_.describe(a) + ", inputs that add");
    if (!owned[port]) {  // what arrived may be what another module gave away
      const Tensor sum = empty_like(x[port]);
      copy_into(sum, x[port]);
      x[port] = sum;
      owned[port] = true;
    }
    add_into(x[port], t);
  }
  held.leaves.assign(local.inputs.size(), nullptr);
  for (size_t port = 0; port < x.size(); ++port) {
    if (!carries[port] || !graph_.has_backward(graph_.node(a))) continue;
    x[port] = leaf(x[port]);
    held.leaves[port] = x[port].node();
  }
  return x;
}

void Executor::backward(const Action& a) {
  const int n = graph_.node(a);
  const Local& local = local_.at(n);
  wait_for(pending_, [&](const Pending& p) {
    return p.action.kind == Kind::send_backward && p.to == n && p.action.wave == a.wave;
  });
  observer_->begin(a);
  const MemoryLabel label(graph_.modules()[a.module]);
  Held& held = held_.at({n, a.wave});
  held.returned.resize(local.out.size());
  // Where several edges leave an output their gradients add, in the order of edges.
  std::vector<Tensor> roots, gradients;
  for (size_t i = 0; i < local.out.size(); ++i) {
    const EdgeSpec& edge = edges_[local.out[i]];
    Tensor g = std::move(held.returned[i]);
    if (!g.defined()) g = Tensor::empty({0, edge.width}, edge.dtype);
    MIMO_CHECK(g.dim(0) == rows(local.out[i], a.wave, true, n), "a gradient is not complete");
    roots.push_back(g.with_node(held.nodes[index_of(local.outputs, edge.edge.src_port)]));
    gradients.push_back(std::move(g));
  }
  for (const Tensor& loss : held.step->losses()) {
    roots.push_back(loss);
    gradients.push_back(scalar(held.step->scale, loss.dtype()));
  }
  held.returned.clear();
  held.nodes.clear();
  held.step->release();
  const bool last = a.wave + 1 == plan_.waves;
  // Between the parts of a stage messages get on, and reductions start.
  held.step->when_ready([&](int part) {
    if (last) {
      come_to_[{a.module, a.stage}] = part;
      reduce_ready();
    }
    progress();
  });
  mimo::backward(roots, gradients);
  held.step->when_ready(nullptr);
  if (last) come_to_[{a.module, a.stage}] = local.stage->parts().first;
  roots.clear();
  gradients.clear();
  held.step.reset();
  held.input_gradients.resize(local.inputs.size());
  for (size_t i = 0; i < local.in.size(); ++i) {
    const EdgeSpec& edge = edges_[local.in[i]];
    const size_t port = index_of(local.inputs, edge.edge.dst_port);
    if (!held.leaves[port] || held.input_gradients[port].defined()) continue;
    const Dims shape{rows(local.in[i], a.wave, false, n), edge.width};
    const Tensor& g = held.leaves[port]->grad;
    if (g.defined()) expect(g, shape, edge.dtype, graph_.describe(a) + ", the gradient of an input");
    held.input_gradients[port] = g.defined() ? contiguous(g) : Tensor::zeros(shape, edge.dtype);
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
    const Local& local = local_.at(from);
    have = forward ? held.outputs[index_of(local.outputs, edge.edge.src_port)]
                   : held.input_gradients[index_of(local.inputs, edge.edge.dst_port)];
  }
  if (mine(to)) {
    const Local& local = local_.at(to);
    Held& held = held_[{to, a.wave}];
    held.arrived.resize(forward ? local.in.size() : 0);
    held.returned.resize(forward ? 0 : local.out.size());
    into = forward ? &held.arrived[index_of(local.in, e.stage_edge)]
                   : &held.returned[index_of(local.out, e.stage_edge)];
    into_rows = rows(e.stage_edge, a.wave, !forward, to);
  }

  std::vector<P2P> messages;
  const Crossing& c = crossings_.at({e.stage_edge, a.wave});
  const Spread &src = c.src[a.lane], &dst = c.dst[a.dst_lane];
  for (const Route& r : c.routes) {
    if (r.src_lane != a.lane || r.dst_lane != a.dst_lane) continue;
    for (const Piece& p : forward ? pieces(r, from_ranks, src, to_ranks, dst)
                                  : pieces(reversed(r), from_ranks, dst, to_ranks, src)) {
      if (p.src != rank_ && p.dst != rank_) continue;
      const bool all = p.rows == into_rows && have.defined() && p.rows == have.dim(0);
      if (p.src == rank_ && p.dst == rank_ && all) {
        *into = have;
        continue;
      }
      if (p.dst == rank_ && !into->defined()) {
        const MemoryLabel label(graph_.modules()[graph_.nodes()[to].module]);
        *into = Tensor::empty({into_rows, edge.width}, edge.dtype);
      }
      if (p.src == rank_ && p.dst == rank_)
        copy_into(into->slice(p.dst_begin, p.dst_begin + p.rows),
                  have.slice(p.src_begin, p.src_begin + p.rows));
      else if (p.src == rank_)
        messages.push_back({true, p.dst, have.slice(p.src_begin, p.src_begin + p.rows)});
      else
        messages.push_back({false, p.src, into->slice(p.dst_begin, p.dst_begin + p.rows)});
    }
  }
  if (!messages.empty()) {
    Communicator& group = forward ? transfers_forward_ : transfers_backward_;
    observer_->started(a);
    pending_.push_back({group.exchange(messages, current_stream()), a, from, to});
  }

  if (!mine(from)) return;
  Held& held = held_.at({from, a.wave});
  if (--held.transfers_left > 0) return;
  held.outputs.clear();
  held.input_gradients.clear();
  // Forward: a backward to come still needs the graph; backward: that was the last of the wave.
  if (!forward || !graph_.has_backward(from)) held_.erase({from, a.wave});
}

}  // namespace mimo
