#include "parallel/execute.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "parallel/verify.h"
#include "tests/parallel/graphs.h"
#include "tests/parallel/rendezvous.h"

namespace mimo {
namespace {

using Kind = Action::Kind;
using testing::Rendezvous;

int64_t rows_of(const SampleSizes& s, int module) { return s.items[module][0].rows; }
int64_t width_of(int module) { return 2 + module; }

// A stage whose every sample becomes rows_of(sample) rows of width_of(module):
//   z[k] = p b(sample, k) + sum over inputs e and their rows j of the sample: x_e[j] Q_e / (1 + k + j),
//   y = z + z^2 / 10, and (1 + port) y at every output port; the last stage's loss is the sum over all rows
//   of cos(sample + k + d) y[d].
// In double, so that any order of sums agrees to about 1e-13.
class FakeStage : public Stage {
 public:
  // sources: the module that each input port's rows come from; outputs: ports.
  FakeStage(int module, int stage, std::vector<int> sources, std::vector<int> outputs, bool trainable,
            const std::vector<SampleSizes>& sizes)
      : module_(module),
        sources_(std::move(sources)),
        outputs_(std::move(outputs)),
        loss_(outputs_.empty()),
        trainable_(trainable),
        sizes_(sizes) {
    int64_t count = width_of(module);
    for (int s : sources_) count += width_of(s) * width_of(module);
    for (int64_t i = 0; i < count; ++i) weights.push_back(0.3 * std::sin(1.0 + i + 3 * module + 7 * stage));
    gradients.resize(count);
  }

  std::vector<Tensor> forward(std::span<const Tensor> inputs, const PackedBatch& batch, Step& step) override {
    EXPECT_EQ(inputs.size(), sources_.size());
    const int64_t w = width_of(module_);
    int64_t total = 0;
    for (int64_t s : batch.samples) total += rows_of(sizes_[s], module_);
    Tensor z = Tensor::zeros({total, w}, DType::f64), y = Tensor::empty({total, w}, DType::f64);
    for_each_term(
        batch.samples,
        [&](int64_t k, double base) {
          for (int64_t d = 0; d < w; ++d) z.data<double>()[k * w + d] += weights[d] * base;
        },
        [&](int e, int64_t k, int64_t j, int64_t offset, double c) {
          const double* x = inputs[e].data<double>() + j * inputs[e].cols();
          for (int64_t i = 0; i < inputs[e].cols(); ++i)
            for (int64_t d = 0; d < w; ++d)
              z.data<double>()[k * w + d] += c * x[i] * weights[offset + i * w + d];
        });
    for (int64_t i = 0; i < total * w; ++i) {
      const double v = z.data<double>()[i];
      y.data<double>()[i] = v + 0.1 * v * v;
    }
    std::vector<double> scale;
    if (loss_) {
      double sum = 0;
      int64_t k = 0;
      for (int64_t s : batch.samples)
        for (int64_t r = 0; r < rows_of(sizes_[s], module_); ++r, ++k)
          for (int64_t d = 0; d < w; ++d) {
            scale.push_back(std::cos(static_cast<double>(s + r + d)));
            sum += scale.back() * y.data<double>()[k * w + d];
          }
      y = Tensor::of<double>({sum});
      step.sums["loss"] += sum;
    }
    std::array<Tensor, 3> x;
    for (size_t e = 0; e < inputs.size(); ++e) x[e] = inputs[e];
    // As long as the closure lives, so does a wave's activation.
    most_alive = std::max(most_alive, ++alive);
    const std::shared_ptr<void> token(nullptr, [this](void*) { --alive; });
    const Tensor result = record(
        y, "fake", {x[0], x[1], x[2]},
        [this, x, z, scale, w, token, samples = batch.samples](const Tensor& dy) {
          std::vector<double> dz(z.numel());
          for (int64_t i = 0; i < z.numel(); ++i)
            dz[i] = (loss_ ? dy.data<double>()[0] * scale[i] : dy.data<double>()[i]) *
                    (1 + 0.2 * z.data<double>()[i]);
          std::array<Tensor, 3> dx;
          for (size_t e = 0; e < sources_.size(); ++e) dx[e] = Tensor::zeros(x[e].shape(), DType::f64);
          for_each_term(
              samples,
              [&](int64_t k, double base) {
                for (int64_t d = 0; d < w && trainable_; ++d) gradients[d] += dz[k * w + d] * base;
              },
              [&](int e, int64_t k, int64_t j, int64_t offset, double c) {
                const int64_t n = x[e].cols();
                for (int64_t i = 0; i < n; ++i)
                  for (int64_t d = 0; d < w; ++d) {
                    if (trainable_)
                      gradients[offset + i * w + d] += c * x[e].data<double>()[j * n + i] * dz[k * w + d];
                    dx[e].data<double>()[j * n + i] += c * weights[offset + i * w + d] * dz[k * w + d];
                  }
              });
          for (size_t e = 0; e < sources_.size(); ++e) accumulate(x[e].node(), dx[e]);
        },
        trainable_);
    if (loss_) step.loss(result);
    std::vector<Tensor> out;
    for (int port : outputs_) {
      const double factor = 1 + std::max(port, 0);
      const auto times = [factor](const Tensor& t) {
        Tensor u = empty_like(t);
        for (int64_t i = 0; i < t.numel(); ++i) u.data<double>()[i] = factor * t.data<double>()[i];
        return u;
      };
      out.push_back(record(times(result), "port", {result},
                           [times, node = result.node()](const Tensor& dy) { accumulate(node, times(dy)); }));
    }
    return out;
  }
  std::vector<Parameter*> parameters() override { return {}; }

  std::vector<double> weights, gradients;
  int alive = 0, most_alive = 0;  // waves from forward to backward

 private:
  // own(row, b) for every row, and term(input, row, its row, first weight, coefficient) for every pair of a
  // row and an input's row of the same sample.
  template <class Own, class Term>
  void for_each_term(const std::vector<int64_t>& samples, Own own, Term term) const {
    int64_t k0 = 0;
    std::vector<int64_t> j0(sources_.size());
    for (int64_t s : samples) {
      const int64_t rows = rows_of(sizes_[s], module_);
      for (int64_t k = 0; k < rows; ++k) own(k0 + k, std::sin(1 + 0.7 * s + 0.3 * k));
      int64_t offset = width_of(module_);
      for (size_t e = 0; e < sources_.size(); ++e) {
        const int64_t theirs = rows_of(sizes_[s], sources_[e]);
        for (int64_t k = 0; k < rows; ++k)
          for (int64_t j = 0; j < theirs; ++j)
            term(static_cast<int>(e), k0 + k, j0[e] + j, offset, 1.0 / (1 + k + j));
        j0[e] += theirs;
        offset += width_of(sources_[e]) * width_of(module_);
      }
      k0 += rows;
    }
  }

  int module_;
  std::vector<int> sources_, outputs_;
  bool loss_, trainable_;
  const std::vector<SampleSizes>& sizes_;
};

// Every action as it first begins; one is in hand at a time.
struct Recorder : Observer {
  void begin(const Action& a) override {
    EXPECT_FALSE(open);
    open = true;
    if (std::find(order.begin(), order.end(), a) == order.end()) order.push_back(a);
  }
  void end(const Action&) override {
    EXPECT_TRUE(open);
    open = false;
  }
  std::vector<Action> order;
  bool open = false;
};

// Every (module, stage): its gradient, summed over lanes, and the loss.
struct Outcome {
  std::map<std::pair<int, int>, std::vector<double>> gradients;
  double loss = 0;
  int64_t messages = 0;
};

struct Problem {
  Layout layout;
  ModuleEdges edges;
  std::vector<bool> trainable;
  std::vector<SampleSizes> sizes;
};

std::vector<SampleSizes> random_sizes(std::mt19937& random, int modules, int samples) {
  std::vector<SampleSizes> sizes(samples);
  for (SampleSizes& s : sizes)
    for (int m = 0; m < modules; ++m) {
      const int rows = m + 1 == modules ? 1 + static_cast<int>(random() % 4)
                                        : std::max(0, static_cast<int>(random() % 6) - 2);
      s.items.push_back({{.height = 1, .width = 1, .rows = rows}});
    }
  return sizes;
}

// Runs a step on `graph`, whose nodes are those of the layout or the same stages on other ranks.
Outcome execute(const Problem& p, const PlanGraph& graph, const Layout& lanes, int waves, double nudge = 0,
                std::pair<int, int> nudged = {}, int weight = 0) {
  const Plan plan = plan_step(graph, waves);
  verify(plan, graph);
  const std::vector<StageEdge> stage = stage_edges(p.layout, p.edges);
  std::vector<EdgeSpec> specs;
  for (const StageEdge& e : stage)
    specs.push_back({e, width_of(e.src_module), DType::f64,
                     [m = e.src_module](const SampleSizes& s) { return rows_of(s, m); }});
  const std::vector<Wave> dealt = deal(static_cast<int64_t>(p.sizes.size()), waves, lanes);

  Rendezvous forward(graph.world()), backward(graph.world());
  std::mutex mutex;
  Outcome total;
  std::map<std::array<int, 3>, std::vector<double>> of_lane;
  testing::run_ranks(graph.world(), [&](int rank) {
    std::map<std::pair<int, int>, std::unique_ptr<FakeStage>> owned_stages;
    std::map<std::pair<int, int>, Stage*> stages;
    std::map<int, int> lane;
    bool counts = false;  // the first rank of a loss stage's block
    for (const PlanGraph::Node& n : graph.nodes()) {
      if (std::find(n.ranks.begin(), n.ranks.end(), rank) == n.ranks.end()) continue;
      std::map<int, int> by_port;
      std::set<int> outputs;
      for (const StageEdge& e : stage) {
        if (e.dst_module == n.module && e.dst_stage == n.stage) by_port[e.dst_port] = e.src_module;
        if (e.src_module == n.module && e.src_stage == n.stage) outputs.insert(e.src_port);
      }
      std::vector<int> sources;
      for (const auto& [port, source] : by_port) sources.push_back(source);
      auto& s = owned_stages[{n.module, n.stage}];
      s = std::make_unique<FakeStage>(n.module, n.stage, sources,
                                      std::vector<int>(outputs.begin(), outputs.end()), p.trainable[n.module],
                                      p.sizes);
      if (nudge != 0 && nudged == std::pair(n.module, n.stage)) s->weights[weight] += nudge;
      stages[{n.module, n.stage}] = s.get();
      lane[n.module] = n.lane;
      counts = counts || (outputs.empty() && n.ranks[0] == rank);
    }
    Rendezvous::Endpoint to(forward, rank), back(backward, rank);
    Executor executor(graph, plan, specs, rank, stages, to, back);
    struct Hooks : StepHooks {
      std::function<std::vector<int64_t>(int, int)> samples;
      PackedBatch packed;
      std::set<std::pair<int, int>> reduced;
      bool updated = false;
      const PackedBatch& batch(int module, int wave) override {
        packed.samples = samples(module, wave);
        return packed;
      }
      Work reduce(int m, int s, int bucket) override {
        EXPECT_EQ(bucket, 0);
        reduced.insert({m, s});
        return {};
      }
      void step_reduce(Sums&) override { EXPECT_FALSE(updated); }
      void update() override { updated = true; }
    } hooks;
    hooks.samples = [&](int module, int wave) {
      std::vector<int64_t> samples;
      for (int i : owned(dealt[wave], module, lane.at(module))) samples.push_back(dealt[wave].samples[i]);
      return samples;
    };
    Recorder observer;
    // Twice: nothing of a step may remain.
    for (int repeat = 0; repeat < 2; ++repeat) {
      hooks.updated = false;
      observer = {};
      for (auto& [key, s] : owned_stages) std::fill(s->gradients.begin(), s->gradients.end(), 0);
      Sums sums({"loss"});
      executor.step(dealt, p.sizes, sums, hooks, observer);
      if (repeat == 1 && counts) {
        std::lock_guard lock(mutex);
        total.loss += sums["loss"];
      }
    }
    EXPECT_EQ(hooks.updated, !graph.forward_only());
    EXPECT_EQ(observer.order, restrict_to(plan, rank, graph).order);
    EXPECT_FALSE(observer.open);
    std::lock_guard lock(mutex);
    for (const auto& [key, s] : owned_stages) {
      EXPECT_EQ(s->alive, 0);
      EXPECT_LE(s->most_alive, plan.in_flight[graph.lanes(key.first, key.second)[lane[key.first]]]);
      EXPECT_EQ(hooks.reduced.count(key), p.trainable[key.first] && !graph.forward_only());
      // All ranks of a block have the very same gradient.
      const auto [it, fresh] = of_lane.insert({{key.first, key.second, lane[key.first]}, s->gradients});
      EXPECT_EQ(it->second, s->gradients) << "rank " << rank;
    }
  });
  EXPECT_TRUE(forward.idle() && backward.idle());
  for (const auto& [key, g] : of_lane) {
    std::vector<double>& sum = total.gradients[{key[0], key[1]}];
    sum.resize(g.size());
    for (size_t i = 0; i < g.size(); ++i) sum[i] += g[i];
  }
  total.messages = forward.messages() + backward.messages();
  return total;
}

// The same stages, one lane each, all on one rank.
std::pair<PlanGraph, Layout> on_one_rank(const Problem& p, bool forward_only = false) {
  Layout one = p.layout;
  one.world = 1;
  std::vector<std::string> names;
  std::vector<PlanGraph::Node> nodes;
  std::vector<PlanGraph::Edge> edges;
  std::map<std::pair<int, int>, int> index;
  for (int m = 0; m < static_cast<int>(one.modules.size()); ++m) {
    names.push_back(one.modules[m].first);
    one.modules[m].second.dp = one.modules[m].second.tp = 1;
    for (int s = 0; s < one.modules[m].second.stages(); ++s) {
      index[{m, s}] = static_cast<int>(nodes.size());
      nodes.push_back({m, s, 0, {0}, {.trainable = p.trainable[m]}});
    }
  }
  for (const StageEdge& e : stage_edges(p.layout, p.edges))
    edges.push_back({index[{e.src_module, e.src_stage}], index[{e.dst_module, e.dst_stage}]});
  return {PlanGraph(names, nodes, edges, forward_only), one};
}

void expect_same(const Outcome& a, const Outcome& b) {
  // Sums of at most a few thousand doubles of order 1 in another order: 1e-16 x 1e3, relative to the largest.
  EXPECT_NEAR(a.loss, b.loss, 1e-12 * (1 + std::abs(b.loss)));
  ASSERT_EQ(a.gradients.size(), b.gradients.size());
  for (const auto& [key, g] : b.gradients) {
    const std::vector<double>& other = a.gradients.at(key);
    ASSERT_EQ(other.size(), g.size());
    double largest = 1;
    for (double v : g) largest = std::max(largest, std::abs(v));
    for (size_t i = 0; i < g.size(); ++i)
      ASSERT_NEAR(other[i], g[i], 1e-12 * largest) << "module " << key.first << " stage " << key.second;
  }
}

// The reference of the other tests against finite differences of its loss.
TEST(Execute, OneRankGradientsAreDerivativesOfTheLoss) {
  std::mt19937 random(3);
  Problem p{{{{"a", {.pp = 2}}, {"b", {}}, {"c", {.pp = 2}}}, 1},
            {{0, 2}, {.src = 1, .dst = 2, .dst_port = 1}, {0, 1}},
            {true, true, true},
            random_sizes(random, 3, 5)};
  const auto [graph, one] = on_one_rank(p);
  const Outcome exact = execute(p, graph, one, 2);
  EXPECT_EQ(exact.messages, 0);
  const double h = 1e-5;
  for (const auto& [stage, g] : exact.gradients)
    for (int i = 0; i < static_cast<int>(g.size()); ++i) {
      const double slope =
          (execute(p, graph, one, 2, h, stage, i).loss - execute(p, graph, one, 2, -h, stage, i).loss) /
          (2 * h);
      // Truncation h^2 and rounding 1e-16 / h, times the size of the loss and its third derivative.
      EXPECT_NEAR(g[i], slope, 1e-7 * (1 + std::abs(slope)))
          << stage.first << "." << stage.second << " " << i;
    }
}

TEST(Execute, RandomLayoutsMatchOneRank) {
  std::mt19937 random(4);
  int64_t messages = 0;
  for (int i = 0; i < 90; ++i) {
    const testing::RandomStep step = testing::random_step(random, 3);
    Problem p{step.layout, step.edges, step.trainable, {}};
    p.sizes =
        random_sizes(random, static_cast<int>(p.layout.modules.size()), static_cast<int>(random() % 14));
    const bool forward_only = i % 6 == 5;
    const PlanGraph graph = step_graph(p.layout, p.edges, step.costs, forward_only);
    const auto [one, lanes] = on_one_rank(p, forward_only);
    SCOPED_TRACE(i);
    const Outcome many = execute(p, graph, p.layout, 1 + static_cast<int>(random() % 4));
    expect_same(many, execute(p, one, lanes, 1));
    messages += many.messages;
    if (HasFailure()) return;
  }
  EXPECT_GT(messages, 1000);
}

// One module feeds two others, of which one feeds the other; several of its ports and stages lead to several
// ports and stages, and two of them into one port: where all this lies changes nothing.
TEST(Execute, EdgesAddAtPortsAndPassStages) {
  std::mt19937 random(9);
  const Grid two{.pp = 2};
  Problem p{{{{"a", two}, {"b", {}}, {"c", {.pp = 3}}}, 1}, {}, {true, true, true}, {}};
  p.sizes = random_sizes(random, 3, 6);
  p.edges = ModuleEdges{{.src = 0, .dst = 2},
                        {.src = 0, .dst = 1},
                        {.src = 1, .dst = 2, .dst_stage = 2, .dst_port = 3},
                        {.src = 0, .dst = 2, .dst_stage = 2, .src_port = 1, .dst_port = 1},
                        {.src = 0, .dst = 2, .src_stage = 0, .dst_stage = 1, .src_port = 2, .dst_port = 2},
                        {.src = 0, .dst = 2, .dst_stage = 1, .dst_port = 2}};
  const auto [one, lanes] = on_one_rank(p);
  const Outcome exact = execute(p, one, lanes, 1);
  const double h = 1e-5;
  for (const auto& [stage, g] : exact.gradients) {
    const double slope =
        (execute(p, one, lanes, 1, h, stage, 0).loss - execute(p, one, lanes, 1, -h, stage, 0).loss) /
        (2 * h);
    EXPECT_NEAR(g[0], slope, 1e-7 * (1 + std::abs(slope))) << stage.first << "." << stage.second;
  }
  for (const auto& [a, b, c] :
       {std::array<Grid, 3>{Grid{.dp = 2, .pp = 2}, {.offset = 4}, {.offset = 5, .pp = 3}},
        {Grid{.pp = 2}, {.offset = 1, .dp = 2}, {.offset = 0, .tp = 2, .pp = 3}},
        {Grid{.offset = 2, .tp = 2, .pp = 2}, {.dp = 3}, {.dp = 2, .pp = 3}}}) {
    Problem q = p;
    q.layout = {{{"a", a}, {"b", b}, {"c", c}}, std::max({a.end(), b.end(), c.end()})};
    expect_same(execute(q, step_graph(q.layout, q.edges), q.layout, 2), exact);
  }
}

// Two modules with one edge, one sample of two rows in the first and one in the second.
Problem pair_of(Grid first, Grid second) {
  Problem p{{{{"a", first}, {"b", second}}, std::max(first.end(), second.end())}, {{0, 1}}, {true, true}, {}};
  p.sizes = {{.items = {{{.rows = 2}}, {{.rows = 1}}}}};
  return p;
}
Outcome execute(const Problem& p, int waves = 1) {
  return execute(p, step_graph(p.layout, p.edges), p.layout, waves);
}

TEST(Execute, EveryReceiverGetsOneMessage) {
  // Four ranks take the output, two take the gradient back.
  EXPECT_EQ(execute(pair_of({.tp = 2}, {.offset = 2, .tp = 4})).messages, 2 * (4 + 2));  // two steps
  EXPECT_EQ(execute(pair_of({.tp = 4}, {.offset = 4, .tp = 2})).messages, 2 * (2 + 4));
  // Ranks that have what they need take it from themselves.
  EXPECT_EQ(execute(pair_of({.tp = 4}, {.tp = 4})).messages, 0);
  EXPECT_EQ(execute(pair_of({.tp = 2, .dp = 2}, {.tp = 4})).messages,
            2 * 2);  // the one sample lies on lane 1
}

TEST(Execute, StepsAndWavesWithoutSamples) {
  Problem p = pair_of({.dp = 3}, {.offset = 3, .tp = 2, .dp = 2});
  const Outcome some = execute(p, 4);  // one sample in four waves
  EXPECT_NE(some.loss, 0);
  p.sizes[0].items[0][0].rows = 0;
  const Outcome no_rows = execute(p, 1);
  EXPECT_EQ(no_rows.messages, 0);
  EXPECT_NE(no_rows.loss, 0);
  p.sizes.clear();
  const Outcome none = execute(p, 3);
  EXPECT_EQ(none.loss, 0);
  EXPECT_EQ(none.messages, 0);
  for (const auto& [stage, g] : none.gradients)
    for (double v : g) EXPECT_EQ(v, 0);
}

// Gives back what it is told to, whatever comes in.
struct FixedStage : Stage {
  std::vector<Tensor> forward(std::span<const Tensor>, const PackedBatch&, Step& step) override {
    if (!loss) return {result()};
    step.loss(result());
    return {};
  }
  std::vector<Parameter*> parameters() override { return {}; }
  std::function<Tensor()> result;
  bool loss = false;
};

// The same empty batch for all.
struct NoBatches : StepHooks {
  const PackedBatch& batch(int, int) override { return packed; }
  PackedBatch packed;
};

TEST(Execute, FrozenEncodersDoNotRunAwayFromSlowReceivers) {
  const Layout layout{{{"runaway", {}}, {"slow", {.offset = 1}}}, 2};
  Costs costs;
  costs.stages = {{{.trainable = false}}, {{}}};
  const PlanGraph graph = step_graph(layout, {{0, 1}}, costs);
  constexpr int waves = 12;
  const Plan plan = plan_step(graph, waves);
  ASSERT_EQ(plan.in_flight[0], 2);
  const std::vector<EdgeSpec> specs{
      {{0, 0, 1, 0, 0, 0}, 8, DType::f64, [](const SampleSizes& s) { return s.tokens; }}};
  const std::vector<SampleSizes> sizes(waves, SampleSizes{8, 0, {}});
  const std::vector<Wave> dealt = deal(waves, waves, layout);
  Rendezvous forward(2), backward(2);
  testing::run_ranks(2, [&](int rank) {
    FixedStage stage;
    stage.loss = rank == 1;
    stage.result = [&] {
      if (rank == 0) return Tensor::zeros({8, 8}, DType::f64);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      return leaf(Tensor::zeros({1}, DType::f64));
    };
    Rendezvous::Endpoint to(forward, rank), back(backward, rank);
    Executor executor(graph, plan, specs, rank, {{{rank, 0}, &stage}}, to, back);
    NoBatches hooks;
    Observer observer;
    Sums sums;
    executor.step(dealt, sizes, sums, hooks, observer);
  });
  const MemoryStatistics memory = memory_statistics().at("runaway");
  EXPECT_EQ(memory.current, 0);
  EXPECT_LE(memory.peak, plan.in_flight[0] * 8 * 8 * 8);  // doubles of the waves in flight
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "no error";
}

TEST(Execute, SaysWhatDoesNotFit) {
  const Layout layout{{{"a", {}}, {"b", {}}}, 1};
  const PlanGraph graph = step_graph(layout, {{0, 1}});
  const Plan plan = plan_step(graph, 1);
  const std::vector<EdgeSpec> specs{
      {{0, 0, 1, 0, 0, 0}, 3, DType::f32, [](const SampleSizes& s) { return s.tokens; }}};
  Rendezvous none(1);
  Rendezvous::Endpoint c(none, 0);
  FixedStage a, b;
  b.loss = true;
  const std::vector<SampleSizes> sizes{{2, 0, {}}};
  NoBatches hooks;
  Observer observer;
  Sums sums;
  const auto run = [&](const Layout& lanes, int waves) {
    return error_of([&] {
      Executor(graph, plan, specs, 0, {{{0, 0}, &a}, {{1, 0}, &b}}, c, c)
          .step(deal(1, waves, lanes), sizes, sums, hooks, observer);
    });
  };
  a.result = [] { return Tensor::zeros({2, 3}, DType::f32); };
  b.result = [] { return Tensor::zeros({1}, DType::f32); };
  EXPECT_EQ(run(layout, 1), "no error");
  EXPECT_NE(run(layout, 2).find("a plan of 1 waves for a step of 2"), std::string::npos);
  a.result = [] { return Tensor::zeros({2, 4}, DType::f32); };
  EXPECT_NE(
      run(layout, 1).find("forward a.0 lane 0 wave 0, its output: expected [2, 3] f32, found [2, 4] f32"),
      std::string::npos)
      << run(layout, 1);
  a.result = [] { return Tensor::zeros({2, 3}, DType::f64); };
  EXPECT_NE(run(layout, 1).find("found [2, 3] f64"), std::string::npos);
  a.result = [] { return Tensor::zeros({2, 3}, DType::f32); };
  b.result = [] { return Tensor::zeros({2}, DType::f32); };
  EXPECT_NE(run(layout, 1).find("expected a loss sum [1], found [2]"), std::string::npos);
  Layout other = layout;  // a deal for more lanes than the plan has
  other.modules[0].second.dp = 2;
  EXPECT_NE(run(other, 1).find("no edge 0 from lane 1 to lane 0"), std::string::npos) << run(other, 1);
  EXPECT_NE(error_of([&] {
              Executor(graph, plan, specs, 0, {{{0, 0}, &a}}, c, c);
            }).find("lacks stage 0 of b"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              Executor(graph, plan, {}, 0, {{{0, 0}, &a}, {{1, 0}, &b}}, c, c);
            }).find("stage edge 0 has no EdgeSpec"),
            std::string::npos);
}

}  // namespace
}  // namespace mimo
