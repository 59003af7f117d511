#include "parallel/spread.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "parallel/execute.h"
#include "parallel/verify.h"
#include "tests/parallel/graphs.h"
#include "tests/parallel/rendezvous.h"

namespace mimo {
namespace {

using testing::Rendezvous;
using Ranges = std::vector<RowRange>;

// The lane's rows in the order in which they lie in a part.
std::vector<int64_t> laid(const Ranges& part) {
  std::vector<int64_t> rows;
  for (const RowRange& r : part)
    for (int64_t i = 0; i < r.rows; ++i) rows.push_back(r.begin + i);
  return rows;
}

TEST(Spread, OfEightRows) {
  EXPECT_EQ(one_part(8), (Spread{{{0, 8}}}));
  EXPECT_EQ(sliced(8, 2), (Spread{{{0, 4}}, {{4, 4}}}));
  EXPECT_EQ(zig_zag(8, 2), (Spread{{{0, 2}, {6, 2}}, {{2, 4}}}));
  EXPECT_EQ(zig_zag(8, 2, 2), (Spread{{{0, 2}}, {{6, 2}}, {{2, 2}}, {{4, 2}}}));
  EXPECT_EQ(sliced(7, 4), (Spread{{{0, 2}}, {{2, 2}}, {{4, 2}}, {{6, 1}}}));
  EXPECT_EQ(zig_zag(1, 2), (Spread{{{0, 1}}, {}}));
  EXPECT_EQ(sliced(0, 2), (Spread{{}, {}}));
}

// Against the definition, element by element: the stream with its ignored tail is cut in 2 cp chunks, rank r
// takes chunks r and 2 cp - 1 - r, and of what it has slice s.
TEST(Spread, AreChunksFromBothEnds) {
  for (const int cp : {1, 2, 3, 4})
    for (const int sp : {1, 2, 3})
      for (int64_t n = 0; n <= 60; ++n) {
        const int64_t unit = (cp > 1 ? 2 * cp : 1) * sp;
        std::vector<int64_t> stream;
        for (int64_t i = 0; i < n; ++i) stream.push_back(i);
        while (std::ssize(stream) % unit != 0) stream.push_back(-1);
        const Spread parts = zig_zag(n, cp, sp);
        ASSERT_EQ(std::ssize(parts), cp * sp);
        check_spread(parts, n, 2 * cp * sp);
        const int64_t chunk = std::ssize(stream) / (2 * cp);
        for (int r = 0; r < cp; ++r) {
          std::vector<int64_t> mine;
          if (cp == 1) mine = stream;
          for (const int c : {r, 2 * cp - 1 - r})
            if (cp > 1) mine.insert(mine.end(), stream.begin() + c * chunk, stream.begin() + (c + 1) * chunk);
          const int64_t each = std::ssize(mine) / sp;
          for (int s = 0; s < sp; ++s) {
            std::vector<int64_t> want(mine.begin() + s * each, mine.begin() + (s + 1) * each);
            std::vector<int64_t> got = laid(parts[r * sp + s]);
            got.resize(want.size(), -1);  // the tail lies behind
            ASSERT_EQ(got, want) << n << " rows, cp " << cp << ", sp " << sp << ", part " << r << "," << s;
          }
        }
      }
}

TEST(Spread, AreSharedByNeighbours) {
  std::vector<int> of;
  for (int i = 0; i < 6; ++i) of.push_back(part_of(i, 6, sliced(9, 3)));
  EXPECT_EQ(of, (std::vector<int>{0, 0, 1, 1, 2, 2}));
}

std::string error_of(const Spread& parts, int64_t rows, int n) {
  try {
    check_spread(parts, rows, n);
  } catch (const std::exception& e) {
    return e.what();
  }
  return "no error";
}

TEST(Spread, HoldEveryRowOnce) {
  EXPECT_EQ(error_of({{{2, 1}}, {{0, 2}}}, 3, 4), "no error");
  const auto says = [](const std::string& error, const std::string& what) {
    EXPECT_NE(error.find(what), std::string::npos) << error;
  };
  says(error_of({{{0, 2}}, {{1, 1}}}, 2, 2), "row 1 of a lane is in several parts");
  says(error_of({{{0, 1}}, {{2, 1}}}, 3, 2), "row 1 of a lane is in no part");
  says(error_of({{{0, 2}}}, 3, 2), "parts of 2 rows for a lane of 3");
  says(error_of(sliced(4, 2), 4, 3), "2 parts over 3 ranks");
  says(error_of({}, 0, 1), "0 parts over 1 ranks");
}

// Any way to lay rows that a block of n ranks can have, and one of none of the named ones.
Spread random_spread(std::mt19937& random, int64_t rows, int n) {
  std::vector<int> divisors;
  for (int p = 1; p <= n; ++p)
    if (n % p == 0) divisors.push_back(p);
  const int parts = divisors[random() % divisors.size()];
  switch (random() % 4) {
    case 0:
      return one_part(rows);
    case 1:
      return sliced(rows, parts);
    case 2:
      return parts % 2 == 0 && random() % 2 ? zig_zag(rows, parts / 2, 2) : zig_zag(rows, parts);
    default: {
      Spread any(parts);
      std::vector<RowRange> cut;
      for (int64_t at = 0; at < rows;) {
        const int64_t end = std::min<int64_t>(rows, at + 1 + random() % 4);
        cut.push_back({at, end - at});
        at = end;
      }
      std::shuffle(cut.begin(), cut.end(), random);
      for (const RowRange& r : cut) any[random() % parts].push_back(r);
      return any;
    }
  }
}

Ranks random_block(std::mt19937& random, int world) {
  Ranks all = consecutive(0, world);
  std::shuffle(all.begin(), all.end(), random);
  all.resize(1 + random() % world);
  return all;
}

TEST(Pieces, GiveEveryHolderEveryRowOnceAndNoMoreThanItLacks) {
  std::mt19937 random(11);
  int travelled = 0, stayed = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    const Ranks from = random_block(random, 6), to = random_block(random, 6);
    const int64_t src_rows = random() % 30, dst_rows = random() % 30;
    Route r{0, 0, 0, 0, static_cast<int64_t>(random() % (1 + std::min(src_rows, dst_rows)))};
    r.src_begin = random() % (1 + src_rows - r.rows);
    r.dst_begin = random() % (1 + dst_rows - r.rows);
    const Spread src = random_spread(random, src_rows, static_cast<int>(from.size())),
                 dst = random_spread(random, dst_rows, static_cast<int>(to.size()));
    std::map<int, std::vector<int64_t>> has, wants;  // lane's rows, by rank
    for (int i = 0; i < std::ssize(from); ++i) has[from[i]] = laid(src[part_of(i, std::ssize(from), src)]);
    for (int i = 0; i < std::ssize(to); ++i) wants[to[i]] = laid(dst[part_of(i, std::ssize(to), dst)]);
    std::map<int, std::vector<int64_t>> got;
    for (const auto& [rank, rows] : wants) got[rank].assign(rows.size(), -1);
    const std::vector<Piece> all = pieces(r, from, src, to, dst);
    for (size_t i = 0; i < all.size(); ++i) {
      const Piece& p = all[i];
      ASSERT_GT(p.rows, 0);
      for (int64_t k = 0; k < p.rows; ++k) {
        int64_t& place = got.at(p.dst).at(p.dst_begin + k);
        ASSERT_EQ(place, -1) << "two pieces fill one row";
        place = has.at(p.src).at(p.src_begin + k);
        const bool own =
            has.contains(p.dst) && std::find(has[p.dst].begin(), has[p.dst].end(), place) != has[p.dst].end();
        ASSERT_EQ(p.src == p.dst, own) << "what a rank has it takes from itself";
        ++(own ? stayed : travelled);
      }
      if (i == 0 || all[i - 1].dst != p.dst) continue;
      ASSERT_LT(all[i - 1].dst_begin, p.dst_begin);
      ASSERT_FALSE(all[i - 1].src == p.src && all[i - 1].src_begin + all[i - 1].rows == p.src_begin &&
                   all[i - 1].dst_begin + all[i - 1].rows == p.dst_begin)
          << "runs are maximal";
    }
    for (const auto& [rank, rows] : wants)
      for (size_t k = 0; k < rows.size(); ++k) {
        const int64_t in = rows[k] - r.dst_begin;  // the route
        ASSERT_EQ(got[rank][k], in >= 0 && in < r.rows ? r.src_begin + in : -1) << "trial " << trial;
      }
  }
  EXPECT_GT(travelled, 10000);
  EXPECT_GT(stayed, 3000);
}

// Where all ranks of both blocks have the same: one message for each that is not itself a sender, from rank
// j mod size.
TEST(Pieces, OfOnePartComeFromOneRankEach) {
  const Route r{0, 0, 3, 1, 5};
  EXPECT_EQ(pieces(r, {4, 5}, one_part(9), {0, 5, 2}, one_part(7)),
            (std::vector<Piece>{{4, 0, 3, 1, 5}, {5, 5, 3, 1, 5}, {4, 2, 3, 1, 5}}));
}

// Ranks that have the same part share the work.
TEST(Pieces, ComeFromAllHolders) {
  std::map<int, int64_t> sent;
  for (const Piece& p : pieces({0, 0, 0, 0, 8}, {0, 1, 2, 3}, sliced(8, 2), {4, 5, 6, 7}, one_part(8)))
    sent[p.src] += p.rows;
  EXPECT_EQ(sent, (std::map<int, int64_t>{{0, 8}, {1, 8}, {2, 8}, {3, 8}}));
}

// Runs a step of stages that compute row by row, so that each rank needs no more than its part:
//   z[k] = p b(sample, k) + sum over inputs e of q_e x_e[k],   y[k] = z[k] + z[k]^2 / 10;
// a stage without outputs has the loss sum over its rows of cos(sample + k) y[k].
struct RowStage : Stage {
  std::vector<double> weights, gradients;  // p, q_0, q_1, ...
  size_t outputs = 0;
  std::vector<std::pair<int64_t, int64_t>> rows;  // of the part: sample, row of it

  std::vector<Tensor> forward(std::span<const Tensor> x, const PackedBatch&, Step& step) override {
    const int64_t n = std::ssize(rows);
    EXPECT_EQ(x.size() + 1, weights.size());
    std::vector<double> z(rows.size()), b(rows.size()), c(rows.size());
    Tensor y = Tensor::empty({n, 1}, DType::f64);
    double loss = 0;
    for (int64_t k = 0; k < n; ++k) {
      b[k] =
          std::sin(1 + 0.7 * static_cast<double>(rows[k].first) + 0.3 * static_cast<double>(rows[k].second));
      c[k] = std::cos(static_cast<double>(rows[k].first + rows[k].second));
      z[k] = weights[0] * b[k];
      for (size_t e = 0; e < x.size(); ++e) z[k] += weights[e + 1] * x[e].data<double>()[k];
      y.data<double>()[k] = z[k] + 0.1 * z[k] * z[k];
      loss += c[k] * y.data<double>()[k];
    }
    const bool is_loss = outputs == 0;
    if (is_loss) {
      y = Tensor::of<double>({loss});
      step.sums["loss"] += loss;
    }
    std::array<Tensor, 3> in;
    std::copy(x.begin(), x.end(), in.begin());
    const size_t inputs = x.size();
    const Tensor out = record(
        y, "rows", {in[0], in[1], in[2]},
        [this, in, z, b, c, n, inputs, is_loss](const Tensor& dy) {
          std::vector<Tensor> dx;
          for (size_t e = 0; e < inputs; ++e) dx.push_back(Tensor::zeros({n, 1}, DType::f64));
          for (int64_t k = 0; k < n; ++k) {
            const double dz =
                (is_loss ? dy.data<double>()[0] * c[k] : dy.data<double>()[k]) * (1 + 0.2 * z[k]);
            gradients[0] += dz * b[k];
            for (size_t e = 0; e < inputs; ++e) {
              gradients[e + 1] += dz * in[e].data<double>()[k];
              dx[e].data<double>()[k] = dz * weights[e + 1];
            }
          }
          for (size_t e = 0; e < inputs; ++e) accumulate(in[e].node(), dx[e]);
        },
        true);
    if (is_loss) step.loss(out);
    return std::vector<Tensor>(outputs, out);
  }
  std::vector<Parameter*> parameters() override { return {}; }
};

struct Outcome {
  std::map<std::pair<int, int>, std::vector<double>> gradients;  // by module and stage
  double loss = 0;
  int64_t messages = 0;
};

// `lay`: how the rows of a stage lie, which all edges at it share.
using Lay = std::function<Spread(int module, int stage, int64_t rows)>;

Outcome execute(const Layout& layout, const ModuleEdges& module_edges, const std::vector<SampleSizes>& sizes,
                int waves, const Lay& lay) {
  const PlanGraph graph = step_graph(layout, module_edges);
  const Plan plan = plan_step(graph, waves);
  verify(plan, graph);
  const auto rows_of_sample = [](const SampleSizes& s) { return int64_t{s.tokens}; };
  std::vector<EdgeSpec> edges;
  const auto stage_edge_list = stage_edges(layout, module_edges);
  const auto parts_of = [&](int module, int stage) {
    return [&lay, module, stage](const std::vector<SampleSizes>& samples) {
      int64_t rows = 0;
      for (const SampleSizes& s : samples) rows += s.tokens;
      return lay(module, stage, rows);
    };
  };
  for (const StageEdge& e : stage_edge_list)
    edges.push_back({e, 1, DType::f64, rows_of_sample, parts_of(e.src_module, e.src_stage),
                     parts_of(e.dst_module, e.dst_stage)});
  const std::vector<Wave> dealt = deal(std::ssize(sizes), waves, layout);

  Rendezvous forward(graph.world()), backward(graph.world());
  std::mutex mutex;
  Outcome total;
  std::map<std::array<int, 4>, std::vector<double>> of_part;  // module, stage, lane, part
  testing::run_ranks(graph.world(), [&](int rank) {
    struct Here {
      RowStage stage;
      const PlanGraph::Node* node;
      int at;  // in its ranks
    };
    std::map<std::pair<int, int>, Here> here;
    std::map<std::pair<int, int>, Stage*> stages;
    for (const PlanGraph::Node& n : graph.nodes()) {
      const auto at = std::find(n.ranks.begin(), n.ranks.end(), rank);
      if (at == n.ranks.end()) continue;
      Here& h = here[{n.module, n.stage}];
      h.node = &n;
      h.at = static_cast<int>(at - n.ranks.begin());
      h.stage.weights = {0.5 + 0.1 * n.module - 0.2 * n.stage};
      for (const StageEdge& e : stage_edge_list) {
        h.stage.outputs =
            std::max<size_t>(h.stage.outputs, e.src_module == n.module && e.src_stage == n.stage);
        if (e.dst_module == n.module && e.dst_stage == n.stage)
          h.stage.weights.push_back(0.6 - 0.3 * static_cast<double>(h.stage.weights.size()));
      }
      h.stage.gradients.resize(h.stage.weights.size());
      stages[{n.module, n.stage}] = &h.stage;
    }
    struct Hooks : StepHooks {
      std::function<void(int, int)> prepare;
      PackedBatch packed;
      const PackedBatch& batch(int module, int wave) override {
        prepare(module, wave);
        return packed;
      }
    } hooks;
    // Rows of the part that each stage of the module has of the wave.
    hooks.prepare = [&](int module, int wave) {
      for (auto& [key, h] : here) {
        if (key.first != module) continue;
        std::vector<std::pair<int64_t, int64_t>> all;
        for (int i : owned(dealt[wave], module, h.node->lane)) {
          const int64_t s = dealt[wave].samples[i];
          for (int64_t k = 0; k < sizes[s].tokens; ++k) all.emplace_back(s, k);
        }
        const Spread parts = lay(key.first, key.second, std::ssize(all));
        h.stage.rows.clear();
        for (int64_t row : laid(parts[part_of(h.at, static_cast<int>(h.node->ranks.size()), parts)]))
          h.stage.rows.push_back(all[row]);
      }
    };
    Rendezvous::Endpoint to(forward, rank), back(backward, rank);
    Executor executor(graph, plan, edges, rank, stages, to, back);
    Observer observer;
    Sums sums({"loss"});
    executor.step(dealt, sizes, sums, hooks, observer);
    std::lock_guard lock(mutex);
    for (const auto& [key, h] : here) {
      const Spread parts = lay(key.first, key.second, 0);
      const int n = static_cast<int>(h.node->ranks.size()), part = part_of(h.at, n, parts);
      const auto [it, fresh] =
          of_part.insert({{key.first, key.second, h.node->lane, part}, h.stage.gradients});
      EXPECT_EQ(it->second, h.stage.gradients) << "ranks with the same part differ";
      if (fresh && h.stage.outputs == 0) total.loss += sums["loss"];
    }
  });
  EXPECT_TRUE(forward.idle() && backward.idle());
  for (const auto& [key, g] : of_part) {
    std::vector<double>& sum = total.gradients[{key[0], key[1]}];
    sum.resize(g.size());
    for (size_t i = 0; i < g.size(); ++i) sum[i] += g[i];
  }
  total.messages = forward.messages() + backward.messages();
  return total;
}

// Encoders and a language model, each stage of which lays its rows as it likes: the same step as one process.
TEST(Spread, HoweverRowsLieAStepIsTheSame) {
  std::mt19937 random(5);
  int64_t messages = 0;
  for (int trial = 0; trial < 120; ++trial) {
    SCOPED_TRACE(trial);
    const auto below = [&](int n) { return static_cast<int>(random() % n); };
    Layout layout, one;
    ModuleEdges edges;
    layout.world = 0;
    const int modules = 1 + below(3);
    for (int m = 0; m < modules; ++m) {
      Grid g{.tp = 1 << below(2), .cp = 1 + below(3), .dp = 1 + below(2), .pp = 1 + below(2)};
      g.offset = below(layout.world + 1);
      layout.world = std::max(layout.world, g.end());
      layout.modules.emplace_back("m" + std::to_string(m), g);
      one.modules.emplace_back("m" + std::to_string(m), Grid{.offset = 0, .pp = 1});
      if (m + 1 < modules) edges.push_back({.src = m, .dst = modules - 1, .dst_port = m});
    }
    // One process has the same stages one after the other, as stages of as many ranks.
    one.world = 0;
    for (int m = 0; m < modules; ++m) {
      Grid& g = one.modules[m].second;
      g.pp = layout.modules[m].second.pp;
      g.offset = one.world;
      one.world = g.end();
    }
    std::vector<SampleSizes> sizes(random() % 9);
    for (SampleSizes& s : sizes) s.tokens = below(4) == 0 ? 0 : below(20);
    const unsigned seed = random();
    const Lay lay = [&layout, seed](int module, int stage, int64_t rows) {
      const Grid& g = layout.modules[module].second;
      switch ((seed >> (4 * module + stage)) % 3) {
        case 0:
          return zig_zag(rows, g.cp);  // tp ranks have the same
        case 1:
          return zig_zag(rows, g.cp, g.tp);
        default:
          return one_part(rows);
      }
    };
    const Outcome many = execute(layout, edges, sizes, 1 + below(3), lay);
    const Outcome single =
        execute(one, edges, sizes, 1, [](int, int, int64_t rows) { return one_part(rows); });
    messages += many.messages;
    // Sums of at most a few thousand doubles of order 1 in another order.
    EXPECT_NEAR(many.loss, single.loss, 1e-12 * (1 + std::abs(single.loss)));
    ASSERT_EQ(many.gradients.size(), single.gradients.size());
    for (const auto& [key, g] : single.gradients)
      for (size_t i = 0; i < g.size(); ++i)
        EXPECT_NEAR(many.gradients.at(key)[i], g[i], 1e-12 * (1 + std::abs(g[i])))
            << "module " << key.first << " stage " << key.second;
    if (HasFailure()) return;
  }
  EXPECT_GT(messages, 1000);
}

}  // namespace
}  // namespace mimo
