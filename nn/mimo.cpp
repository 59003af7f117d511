#include "nn/mimo.h"

#include <algorithm>

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
    if (m.kind == ModuleSpec::Kind::hybrid && g.pp > 1) {
      const std::vector<int> begin = hybrid_stages(m.hybrid, g.pp, kTypicalLength);
      for (int s = 0; s < g.pp; ++s)
        if (begin[s] == begin[s + 1])
          throw ConfigError("module." + m.name + ".pattern",
                            "stage " + std::to_string(s) + " between two bars has no layer: found \"" +
                                m.hybrid.pattern + "\"",
                            "move or remove a |");
    }
  }
}

std::pair<int, int> stage_layers(const ModuleSpec& m, int stage, int stages) {
  const std::vector<int> begin = m.kind == ModuleSpec::Kind::hybrid
                                     ? hybrid_stages(m.hybrid, stages, kTypicalLength)
                                     : split_layers(std::vector<double>(m.layers(), 1.0), stages);
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
  const ModuleSpec& m = model.modules[module];
  const ModuleContext context{m.name, grid, coord, tp, model.dtype, model.seed, m.trainable, m.init_std};
  const auto [begin, end] = stage_layers(m, coord.pp, grid.pp);
  if (m.kind == ModuleSpec::Kind::vit) return make_vit_stage(m.vit, context, begin, end, model.recompute);
  return make_hybrid_stage(m.hybrid, context, begin, end, model.recompute);
}

double stage_flops(const ModelSpec& model, int module, int stage, int stages,
                   const std::vector<SampleSizes>& samples) {
  const ModuleSpec& m = model.modules[module];
  const auto [begin, end] = stage_layers(m, stage, stages);
  double flops = 0;
  for (const SampleSizes& s : samples) {
    if (m.kind == ModuleSpec::Kind::vit) {
      const VitOptions& o = m.vit;
      for (const ItemSize& item : s.items.at(o.modality)) {
        const double length = static_cast<double>(vit_rows(o, item));
        flops += (end - begin) * length * vit_layer_flops(o, length);
        const double patches = double(item.height) * item.width;
        if (begin == 0) flops += patches * 2 * o.channels * o.patch * o.patch * static_cast<double>(o.hidden);
        if (end == o.layers)
          flops += item.rows * 2.0 *
                   (o.projector == "affine" ? static_cast<double>(o.features() * o.out)
                                            : static_cast<double>(o.projector_ffn * (o.features() + o.out)));
      }
    } else {
      const HybridOptions& o = m.hybrid;
      const std::string symbols = layer_symbols(o.pattern);
      for (int i = begin; i < end; ++i) flops += s.tokens * layer_flops(symbols[i], o, s.tokens);
      if (end == m.layers()) flops += s.counted * 2.0 * static_cast<double>(o.hidden * o.vocab);
    }
  }
  return flops;
}

StageMemory stage_memory(const ModelSpec& model, int module, const Grid& grid, int stage,
                         const std::vector<SampleSizes>& samples) {
  const ModuleSpec& m = model.modules[module];
  const auto [begin, end] = stage_layers(m, stage, grid.pp);
  const int64_t tp = grid.tp;
  int64_t rows = 0;
  for (const SampleSizes& s : samples) rows += module_rows(m, s);
  StageMemory memory;
  double values = 0;  // kept for backward, per row
  if (m.kind == ModuleSpec::Kind::vit) {
    const VitOptions& o = m.vit;
    const int64_t d = o.hidden, layers = end - begin;
    memory.parameters += layers * ((4 * d * d + 2 * d * o.ffn) / tp + 6 * d + (3 * d + o.ffn) / tp);
    if (begin == 0)
      memory.parameters +=
          d * (int64_t{o.channels} * o.patch * o.patch + int64_t{o.grid} * o.grid + o.class_tokens);
    if (end == o.layers)
      memory.parameters += o.projector == "affine"
                               ? o.features() * o.out
                               : o.features() + o.projector_ffn * (o.features() + o.out) / tp;
    // two norms and their inputs, q|k|v, the attention's result, and the MLP before and after its activation
    values += static_cast<double>(layers) * (6.0 * d + (4.0 * d + 2.0 * o.ffn) / tp);
  } else {
    const HybridOptions& o = m.hybrid;
    const int64_t d = o.hidden;
    const std::string symbols = layer_symbols(o.pattern);
    for (int i = begin; i < end; ++i) {
      memory.parameters += d;
      values += 2.0 * d;
      if (symbols[i] == 'M') {
        const Mamba2Shape s{o.ssm_heads, o.ssm_head_dim, o.ssm_groups,
                            o.ssm_state, o.conv_width,   o.ssm_chunk};
        memory.parameters +=
            (d * (s.projected() + s.inner()) + s.conv() * (o.conv_width + 1) + 3 * o.ssm_heads + s.inner()) /
            tp;
        values += static_cast<double>(s.projected() + 2 * s.inner()) / tp;
      } else if (symbols[i] == 'S') {
        const int64_t inner = o.scan_inner, dbc = o.scan_dt_rank + 2 * o.scan_state;
        memory.parameters +=
            inner * (3 * d + o.conv_width + 1 + dbc + o.scan_dt_rank + o.scan_state + 2) / tp;
        values += 5.0 * static_cast<double>(inner) / tp + dbc;
      } else if (symbols[i] == '*') {
        const int64_t q = int64_t{o.heads} * o.head_dim, kv = int64_t{o.kv_heads} * o.head_dim;
        memory.parameters += 2 * d * (q + kv) / tp;
        values += static_cast<double>(2 * q + 2 * kv) / tp;
      } else {
        const int64_t up = o.activation == "swiglu" ? 2 * o.ffn : o.ffn;
        memory.parameters += d * (up + o.ffn) / tp;
        values += static_cast<double>(up + o.ffn) / tp;
      }
    }
    if (begin == 0) memory.parameters += o.vocab * d / tp;
    if (end == m.layers()) memory.parameters += d + o.vocab * d / tp;
  }
  if (model.recompute)
    values =
        static_cast<double>(end - begin) * (m.kind == ModuleSpec::Kind::vit ? m.vit.hidden : m.hybrid.hidden);
  const int64_t value = size_of(model.dtype), master = model.dtype == acc_of(model.dtype) ? 0 : 4;
  memory.parameter_bytes = memory.parameters * (m.trainable ? value + 4 + master + 8 : value);
  memory.activation_bytes = static_cast<int64_t>(values * static_cast<double>(rows * value));
  return memory;
}

}  // namespace mimo
