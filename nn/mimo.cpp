#include "nn/mimo.h"

#include <algorithm>

#include "nn/split_layers.h"
#include "tensor/error.h"

namespace mimo {
namespace {

constexpr int32_t kTypicalLength = 1024;  // of a sequence, where stages are cut by cost

// A sample of that length with an item of every modality that the module can be concerned with.
SampleSizes typical_sample(const Module& m) {
  const size_t modalities = static_cast<size_t>(std::max(m.modality(), 0)) + 1;
  return {kTypicalLength, kTypicalLength, {modalities, {{32, 32, 256}}}};
}

std::unique_ptr<Stage> build(const ModelSpec& model, int module, const Grid& grid, int stage, Coord coord,
                             Communicator* tp, bool values) {
  const Module& m = model[module];
  coord.pp = stage % grid.pp;
  return m.make_stage({.module = m.name,
                       .parts = stage_parts(m, stage, grid.stages()),
                       .grid = grid,
                       .coord = coord,
                       .tp = tp,
                       .dtype = model.dtype,
                       .seed = model.seed,
                       .freezing = model.freezing,
                       .init_std = m.init_std,
                       .recompute = model.recompute,
                       .values = values});
}

// The stage that holds a part.
int stage_of(const Module& m, int part, int stages) {
  for (int s = 0; s < stages; ++s)
    if (stage_parts(m, s, stages).contains(part)) return s;
  throw std::logic_error("no stage of " + m.name + " holds part " + std::to_string(part));
}

}  // namespace

std::vector<std::string> ModelSpec::names() const {
  std::vector<std::string> n;
  for (const auto& m : modules) n.push_back(m->name);
  return n;
}

int ModelSpec::predictor() const {
  for (int m = 0; m < size(); ++m)
    if ((*this)[m].predicts()) return m;
  throw std::logic_error("a model without a module that predicts");
}

std::vector<std::string> ModelSpec::sums() const {
  std::vector<std::string> all;
  for (const auto& m : modules)
    for (const std::string& name : m->sums()) all.push_back(name);
  return all;
}

void check_model(const ModelSpec& model, const Layout& layout) {
  for (int i = 0; i < model.size(); ++i) {
    const Module& m = model[i];
    const Grid& g = layout.modules.at(static_cast<size_t>(i)).second;
    m.check(g.tp);
    if (g.stages() > m.layers())
      throw ConfigError("layout." + m.name,
                        "more pipeline stages than layers: expected pp of at most " +
                            std::to_string(m.layers()) + ", found pp" + std::to_string(g.pp),
                        "lower pp or give module." + m.name + " more layers");
    const int marks = static_cast<int>(m.marks().size());
    if (g.stages() > 1 && marks > 0 && marks != g.stages() - 1)
      throw ConfigError("module." + m.name + ".pattern",
                        "stages marked for another pipeline size: expected no | or " +
                            std::to_string(g.stages() - 1) + " of them for pp" + std::to_string(g.pp) +
                            ", found " + std::to_string(marks),
                        "without | the layers are split by cost");
    for (int s = 0; s < g.stages(); ++s)
      if (const auto [begin, end] = stage_layers(m, s, g.stages()); begin == end)
        throw ConfigError("module." + m.name + ".pattern",
                          "stage " + std::to_string(s) + " has no layer: expected one at least",
                          "move or remove a |");
  }
}

std::pair<int, int> stage_layers(const Module& m, int stage, int stages) {
  std::vector<int> begin = m.marks();
  if (stages > 1 && static_cast<int>(begin.size()) == stages - 1) {
    begin.insert(begin.begin(), 0);
    begin.push_back(m.layers());
  } else {
    std::vector<double> cost(static_cast<size_t>(m.layers()), 0.0);
    const std::vector<SampleSizes> sample{typical_sample(m)};
    for (int part = 0; part < m.parts(); ++part)
      cost[static_cast<size_t>(std::clamp(part - 1, 0, m.layers() - 1))] +=
          m.cost(part, sample, 1, DType::f32).flops;
    begin = split_layers(cost, stages);
  }
  return {begin[static_cast<size_t>(stage)], begin[static_cast<size_t>(stage) + 1]};
}

Parts stage_parts(const Module& m, int stage, int stages) {
  const auto [begin, end] = stage_layers(m, stage, stages);
  return {stage == 0 ? 0 : begin + 1, stage == stages - 1 ? m.parts() : end + 1};
}

ModuleEdges module_edges(const ModelSpec& model, const Layout& layout) {
  ModuleEdges out;
  for (const ModelSpec::Edge& e : model.edges) {
    const Module &src = model[e.src], &dst = model[e.dst];
    const auto stages = [&](int m) { return layout.modules.at(static_cast<size_t>(m)).second.stages(); };
    out.push_back(
        {.src = e.src,
         .dst = e.dst,
         .src_stage = stage_of(src, src.outputs()[static_cast<size_t>(e.output)].part, stages(e.src)),
         .dst_stage = stage_of(dst, dst.inputs()[static_cast<size_t>(e.input)].part, stages(e.dst)),
         .src_port = e.output,
         .dst_port = e.input});
  }
  return out;
}

int64_t edge_rows(const ModelSpec& model, const StageEdge& e, const SampleSizes& s) {
  const Module& m = model[e.src_module];
  return e.src_port < 0 ? m.rows(s) : m.flow(e.src_port).rows(s);
}

int64_t edge_width(const ModelSpec& model, const StageEdge& e) {
  const Module& m = model[e.src_module];
  return e.src_port < 0 ? m.width() : m.flow(e.src_port).width;
}

std::unique_ptr<Stage> make_stage(const ModelSpec& model, int module, const Grid& grid, int stage,
                                  const Coord& coord, Communicator* tp) {
  return build(model, module, grid, stage, coord, tp, true);
}

std::unique_ptr<Stage> describe_stage(const ModelSpec& model, int module, const Grid& grid, int stage,
                                      const Coord& coord) {
  return build(model, module, grid, stage, coord, nullptr, false);
}

int64_t parameter_count(const ModelSpec& model, int module, const Grid& grid, int stage, const Coord& coord) {
  const std::unique_ptr<Stage> described = describe_stage(model, module, grid, stage, coord);
  int64_t count = 0;
  for (const Parameter* p : described->parameters()) count += numel(p->shard);
  return count;
}

void settle_backward(ModelSpec& model) {
  auto& all = model.backward;
  all.clear();
  const auto pass_on = [](std::vector<PartBackward>& parts) {
    for (size_t p = 1; p < parts.size(); ++p) parts[p].input = parts[p].input || parts[p - 1].any();
  };
  for (int m = 0; m < model.size(); ++m) {
    const std::unique_ptr<Stage> whole = describe_stage(model, m, {}, 0, {});
    std::vector<PartBackward>& parts = all.emplace_back(static_cast<size_t>(model[m].parts()));
    for (int part = 0; part < model[m].parts(); ++part)
      for (const Parameter* p : whole->parameters_of(part))
        if (p->trainable) parts[static_cast<size_t>(part)].weights = true;
    pass_on(parts);
  }
  for (const ModelSpec::Edge& e : model.edges) {  // sources come first
    const size_t from = static_cast<size_t>(model[e.src].outputs()[static_cast<size_t>(e.output)].part);
    const size_t into = static_cast<size_t>(model[e.dst].inputs()[static_cast<size_t>(e.input)].part);
    if (!all[static_cast<size_t>(e.src)][from].any()) continue;
    all[static_cast<size_t>(e.dst)][into].input = true;
    pass_on(all[static_cast<size_t>(e.dst)]);
  }
}

}  // namespace mimo
