#include "nn/costs.h"

#include <algorithm>

#include "parallel/gradients.h"

namespace mimo {
namespace {

double real(int64_t n) { return static_cast<double>(n); }

// Elements a layer keeps for backward per row: the input of its norm and the norm's result (d each), then
// what its mixer keeps, of which each of tp ranks has a part.
double kept_by_layer(char symbol, const HybridOptions& o, int tp) {
  const double d = real(o.hidden);
  switch (symbol) {
    case 'M': {  // z|x|B|C|dt, the scan's result, the gated norm's
      const Mamba2Shape s = mamba2_shape(o);
      return 2 * d + real(s.projected() + 2 * s.inner()) / tp;
    }
    case 'S':  // x and z, u, delta, the scan's result; dt|B|C, whole on every rank
      return 2 * d + 5.0 * o.scan_inner / tp + o.scan_dt_rank + 2.0 * o.scan_state;
    case '*': {  // q|k|v and the result; rotary embedding makes another q|k
      const double q = double(o.heads) * o.head_dim, kv = double(o.kv_heads) * o.head_dim;
      return 2 * d + (2 * q + 2 * kv + (o.rope_theta > 0 ? q + kv : 0)) / tp;
    }
    default:  // before and after the activation
      return 2 * d + (o.activation == "swiglu" ? 3 : 2) * real(o.ffn) / tp;
  }
}

// Two norms, q|k|v, the attention's result, the MLP before and after its activation.
double kept_by_block(const VitOptions& o, int tp) {
  return 4.0 * real(o.hidden) + (4.0 * real(o.hidden) + 2.0 * real(o.ffn)) / tp;
}

double kept_by_vit_stage(const VitOptions& o, int begin, int end, int tp, bool recompute,
                         const std::vector<SampleSizes>& samples) {
  const double block = recompute ? real(o.hidden) : kept_by_block(o, tp);
  // The projector's input; mlp: its norm's result, and before and after the activation too.
  const double projector = o.projector == "affine"
                               ? real(o.features())
                               : 2.0 * real(o.features()) + 2.0 * real(o.projector_ffn) / tp;
  double kept = 0;
  for (const SampleSizes& s : samples)
    for (const ItemSize& item : s.items.at(o.modality)) {
      kept += (end - begin) * block * real(vit_rows(o, item));
      if (end == o.layers) kept += projector * item.rows;
    }
  return kept;
}

double kept_by_hybrid_stage(const HybridOptions& o, int begin, int end, int tp, bool recompute,
                            const std::vector<SampleSizes>& samples) {
  const std::string symbols = layer_symbols(o.pattern);
  double row = 0;
  for (int i = begin; i < end; ++i) row += recompute ? real(o.hidden) : kept_by_layer(symbols[i], o, tp);
  const bool last = end == static_cast<int>(symbols.size());
  double kept = 0;
  for (const SampleSizes& s : samples) {
    kept += row * s.tokens;
    if (last) kept += s.counted * (2.0 * real(o.hidden) + real(o.vocab) / tp);  // final norm and logits
  }
  return kept;
}

}  // namespace

double layer_flops(char symbol, const HybridOptions& o, double length) {
  const double d = real(o.hidden);
  switch (symbol) {
    case 'M': {  // in and out, convolution, C B^T and its product with x inside a chunk, states and their use
      const Mamba2Shape s = mamba2_shape(o);
      const double q = std::min<double>(o.ssm_chunk, length), inner = real(s.inner()), n = o.ssm_state;
      return 2 * d * real(s.projected()) + 2 * d * inner + 2.0 * o.conv_width * real(s.conv()) +
             q * (n * o.ssm_groups + inner) + 4 * inner * n;
    }
    case 'S': {  // in and out, dt|B|C and dt, convolution, scan
      const double inner = o.scan_inner, n = o.scan_state, r = o.scan_dt_rank;
      return 6 * d * inner + 2 * inner * (2 * r + 2 * n) + 2.0 * o.conv_width * inner + 7 * inner * n;
    }
    case '*': {
      const double q = double(o.heads) * o.head_dim, kv = double(o.kv_heads) * o.head_dim;
      return 4 * d * q + 4 * d * kv + 2 * q * length;
    }
    default:
      return (o.activation == "swiglu" ? 6 : 4) * d * real(o.ffn);
  }
}

double vit_block_flops(const VitOptions& o, double length) {
  const double d = real(o.hidden);
  return 8 * d * d + 4 * d * real(o.ffn) + 4 * d * length;
}

double head_flops(const HybridOptions& o) { return 2.0 * real(o.hidden * o.vocab); }

double stage_flops(const ModelSpec& model, int module, int stage, int stages,
                   const std::vector<SampleSizes>& samples) {
  const ModuleSpec& m = model.modules[module];
  const auto [begin, end] = stage_layers(m, stage, stages);
  double flops = 0;
  if (m.kind == ModuleSpec::Kind::vit) {
    const VitOptions& o = m.vit;
    const double embed = 2.0 * o.channels * o.patch * o.patch * real(o.hidden),
                 project = 2.0 * (o.projector == "affine" ? real(o.features() * o.out)
                                                          : real(o.projector_ffn * (o.features() + o.out)));
    for (const SampleSizes& s : samples)
      for (const ItemSize& item : s.items.at(o.modality)) {
        const double length = real(vit_rows(o, item));
        flops += (end - begin) * length * vit_block_flops(o, length);
        if (begin == 0) flops += embed * item.height * item.width;
        if (end == o.layers) flops += project * item.rows;
      }
  } else {
    const std::string symbols = layer_symbols(m.hybrid.pattern);
    for (const SampleSizes& s : samples) {
      for (int i = begin; i < end; ++i) flops += s.tokens * layer_flops(symbols[i], m.hybrid, s.tokens);
      if (end == m.layers()) flops += s.counted * head_flops(m.hybrid);
    }
  }
  return flops;
}

StageMemory stage_memory(const ModelSpec& model, int module, const Grid& grid, int stage,
                         const std::vector<SampleSizes>& samples) {
  const ModuleSpec& m = model.modules[module];
  const auto [begin, end] = stage_layers(m, stage, grid.pp);
  const int64_t value = size_of(model.dtype), acc = size_of(acc_of(model.dtype));
  StageMemory memory;
  memory.parameters = parameter_count(model, module, grid, {.tp = grid.tp - 1, .pp = stage});
  memory.parameter_bytes =
      memory.parameters * (m.trainable ? value + 3 * acc + (value == acc ? 0 : acc) : value);
  const double kept = m.kind == ModuleSpec::Kind::vit
                          ? kept_by_vit_stage(m.vit, begin, end, grid.tp, model.recompute, samples)
                          : kept_by_hybrid_stage(m.hybrid, begin, end, grid.tp, model.recompute, samples);
  memory.activation_bytes = static_cast<int64_t>(kept * real(value));
  return memory;
}

// See nn/mixers.cpp, nn/hybrid.cpp, nn/vit.cpp: a product whose columns are cut sums the gradient of its
// input, one whose rows are cut its result.
TensorTraffic tensor_traffic(const ModelSpec& model, int module, const Grid& grid, int stage,
                             const std::vector<SampleSizes>& samples) {
  TensorTraffic t;
  if (grid.tp == 1) return t;
  const ModuleSpec& m = model.modules[module];
  const auto [begin, end] = stage_layers(m, stage, grid.pp);
  const int64_t value = size_of(model.dtype), acc = size_of(acc_of(model.dtype));
  const auto layer = [&](int64_t bytes) {
    t.forward.add(bytes);
    t.backward.add(bytes);
    if (model.recompute) t.backward.add(bytes);
  };
  int64_t rows = 0, counted = 0, features = 0;  // features: rows that leave an encoder
  if (m.kind == ModuleSpec::Kind::vit) {
    const VitOptions& o = m.vit;
    for (const SampleSizes& s : samples)
      for (const ItemSize& item : s.items.at(o.modality)) rows += vit_rows(o, item), features += item.rows;
    for (int i = 2 * begin; i < 2 * end; ++i) layer(rows * o.hidden * value);  // attention, MLP
    if (end < o.layers || o.projector == "affine") return t;
    t.forward.add(features * o.out * value);
    t.backward.add(features * o.features() * value);
    return t;
  }
  const HybridOptions& o = m.hybrid;
  const std::string symbols = layer_symbols(o.pattern);
  for (const SampleSizes& s : samples) rows += s.tokens, counted += s.counted;
  if (begin == 0) t.forward.add(rows * o.hidden * value);  // each rank embeds its part of the vocabulary
  for (int i = begin; i < end; ++i) {
    layer(rows * o.hidden * value);
    if (symbols[i] == 'S') layer(rows * (o.scan_dt_rank + 2 * o.scan_state) * value);  // dt|B|C
  }
  if (end < m.layers()) return t;
  t.backward.add(counted * o.hidden * value);
  for (int64_t bytes : {acc, size_of(DType::i32), 2 * acc}) t.forward.add(counted * bytes);  // cross_entropy
  return t;
}

Traffic gradient_traffic(const ModelSpec& model, int module, const Grid& grid, const Coord& coord) {
  std::map<Ranks, std::map<std::string, int64_t>> groups;  // elements by name, in the order of their travel
  const auto described = describe_stage(model, module, grid, coord);
  for (const Parameter* p : described->parameters())
    for (const Ranks& group : p->partial)
      if (const int64_t n = numel(p->shard); p->trainable && group.size() > 1 && n > 0)
        groups[group][p->name] = n;
  Traffic t;
  const int64_t size = size_of(acc_of(model.dtype));
  for (const auto& [group, parameters] : groups) {
    std::vector<int64_t> counts;
    for (const auto& [name, n] : parameters) counts.push_back(n), t.bytes += n * size;
    t.messages += static_cast<int64_t>(bucket_ends(counts, kBucketBytes / size).size());
  }
  return t;
}

}  // namespace mimo
