#include "nn/mimo.h"

#include <algorithm>

#include "nn/costs.h"
#include "nn/split_layers.h"

namespace mimo {
namespace {

constexpr double kTypicalLength = 1024;  // of a sequence, where stages are cut by cost

void divides(const ModuleSpec& m, const std::string& key, int64_t value, int tp) {
  if (value % tp == 0) return;
  throw ConfigError("module." + m.name + "." + key,
                    "tensor parallel size does not divide it: expected a multiple of tp " +
                        std::to_string(tp) + ", found " + std::to_string(value),
                    "lower tp in layout." + m.name + ", or change " + key);
}

int bars_of(const std::string& pattern) {
  return static_cast<int>(std::count(pattern.begin(), pattern.end(), '|'));
}

std::unique_ptr<Stage> build(const ModelSpec& model, int module, const Grid& grid, const Coord& coord,
                             Communicator* tp, bool values) {
  const ModuleSpec& m = model.modules[module];
  const ModuleContext context{m.name,     grid,        coord,      tp,    model.dtype,
                              model.seed, m.trainable, m.init_std, values};
  const auto [begin, end] = stage_layers(m, coord.pp, grid.pp);
  if (m.kind == ModuleSpec::Kind::vit) return make_vit_stage(m.vit, context, begin, end, model.recompute);
  return make_hybrid_stage(m.hybrid, context, begin, end, model.recompute);
}

// Rows of a sample inside a module: tokens, or patches with class tokens.
int64_t module_rows(const ModuleSpec& m, const SampleSizes& s) {
  if (m.kind == ModuleSpec::Kind::hybrid) return s.tokens;
  int64_t rows = 0;
  for (const ItemSize& item : s.items.at(m.vit.modality)) rows += vit_rows(m.vit, item);
  return rows;
}

}  // namespace

int ModuleSpec::layers() const {
  return kind == Kind::vit ? vit.layers : static_cast<int>(layer_symbols(hybrid.pattern).size());
}

ModuleEdges ModelSpec::edges() const {
  ModuleEdges e;
  for (int i = 0; i < language(); ++i) e.push_back({i, language()});
  return e;
}

std::vector<std::string> ModelSpec::names() const {
  std::vector<std::string> n;
  for (const ModuleSpec& m : modules) n.push_back(m.name);
  return n;
}

void check_model(const ModelSpec& model, const Layout& layout) {
  for (size_t i = 0; i < model.modules.size(); ++i) {
    const ModuleSpec& m = model.modules[i];
    const Grid& g = layout.modules.at(i).second;
    if (m.kind == ModuleSpec::Kind::vit) {
      divides(m, "heads", m.vit.heads, g.tp);
      divides(m, "ffn", m.vit.ffn, g.tp);
      if (m.vit.projector == "mlp") divides(m, "projector_ffn", m.vit.projector_ffn, g.tp);
    } else {
      const HybridOptions& o = m.hybrid;
      const auto has = [&](char c) { return o.pattern.find(c) != std::string::npos; };
      if (has('*')) divides(m, "heads", o.heads, g.tp), divides(m, "kv_heads", o.kv_heads, g.tp);
      if (has('-')) divides(m, "ffn", o.ffn, g.tp);
      if (has('M')) divides(m, "ssm_heads", o.ssm_heads, g.tp), divides(m, "ssm_groups", o.ssm_groups, g.tp);
      if (has('S')) divides(m, "scan_inner", o.scan_inner, g.tp);
    }
    if (g.pp > m.layers())
      throw ConfigError("layout." + m.name,
                        "more pipeline stages than layers: expected pp of at most " +
                            std::to_string(m.layers()) + ", found pp" + std::to_string(g.pp),
                        "lower pp or give module." + m.name + " more layers");
    const int bars = m.kind == ModuleSpec::Kind::hybrid ? bars_of(m.hybrid.pattern) : 0;
    if (g.pp > 1 && bars > 0 && bars != g.pp - 1)
      throw ConfigError("module." + m.name + ".pattern",
                        "stages marked for another pipeline size: expected no | or " +
                            std::to_string(g.pp - 1) + " of them for pp" + std::to_string(g.pp) + ", found " +
                            std::to_string(bars),
                        "without | the layers are split by cost");
    for (int s = 0; s < g.pp; ++s) {
      const auto [begin, end] = stage_layers(m, s, g.pp);
      if (begin == end)
        throw ConfigError("module." + m.name + ".pattern",
                          "stage " + std::to_string(s) + " has no layer: found \"" + m.hybrid.pattern + "\"",
                          "move or remove a |");
    }
  }
}

std::pair<int, int> stage_layers(const ModuleSpec& m, int stage, int stages) {
  std::vector<double> cost(m.layers(), 1.0);
  if (m.kind == ModuleSpec::Kind::hybrid) {
    const HybridOptions& o = m.hybrid;
    if (stages > 1 && bars_of(o.pattern) == stages - 1) {
      std::vector<int> end{0};  // of the stages so far
      for (char c : o.pattern)
        if (c == '|')
          end.push_back(end.back());
        else
          ++end.back();
      return {stage == 0 ? 0 : end[stage - 1], end[stage]};
    }
    const std::string symbols = layer_symbols(o.pattern);
    for (size_t i = 0; i < cost.size(); ++i) cost[i] = layer_flops(symbols[i], o, kTypicalLength);
    cost.back() += head_flops(o);
  }
  const std::vector<int> begin = split_layers(cost, stages);
  return {begin[stage], begin[stage + 1]};
}

int64_t edge_rows(const ModelSpec& model, const StageEdge& e, const SampleSizes& s) {
  const ModuleSpec& m = model.modules[e.src_module];
  if (e.src_module == e.dst_module) return module_rows(m, s);
  int64_t rows = 0;
  for (const ItemSize& item : s.items.at(m.vit.modality)) rows += item.rows;
  return rows;
}

int64_t edge_width(const ModelSpec& model, const StageEdge& e) {
  const ModuleSpec& m = model.modules[e.src_module];
  if (e.src_module != e.dst_module) return m.vit.out;
  return m.kind == ModuleSpec::Kind::vit ? m.vit.hidden : m.hybrid.hidden;
}

std::unique_ptr<Stage> make_stage(const ModelSpec& model, int module, const Grid& grid, const Coord& coord,
                                  Communicator* tp) {
  return build(model, module, grid, coord, tp, true);
}

std::unique_ptr<Stage> describe_stage(const ModelSpec& model, int module, const Grid& grid,
                                      const Coord& coord) {
  return build(model, module, grid, coord, nullptr, false);
}

int64_t parameter_count(const ModelSpec& model, int module, const Grid& grid, const Coord& coord) {
  const std::unique_ptr<Stage> stage = describe_stage(model, module, grid, coord);
  int64_t count = 0;
  for (const Parameter* p : stage->parameters()) count += numel(p->shard);
  return count;
}

}  // namespace mimo
