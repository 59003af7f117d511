#include "nn/costs.h"

#include <map>

#include "parallel/gradients.h"

namespace mimo {
namespace {

// Recompute is of layers, not of what makes and ends the stream.
bool recomputed(const ModelSpec& model, int module, int part) {
  return model.recompute && part > 0 && part < model[module].parts() - 1;
}

}  // namespace

StageFlops stage_flops(const ModelSpec& model, int module, int stage, int stages,
                       const std::vector<SampleSizes>& samples) {
  const Parts parts = stage_parts(model[module], stage, stages);
  const std::vector<PartBackward>& back = model.backward[static_cast<size_t>(module)];
  StageFlops f;
  for (int part = parts.begin; part < parts.end; ++part) {
    const double flops = model[module].cost(part, samples, 1, model.dtype).flops;
    const PartBackward& b = back[static_cast<size_t>(part)];
    f.forward += flops;
    f.backward += flops * (b.weights + b.input + (b.any() && recomputed(model, module, part)));
  }
  return f;
}

StageMemory stage_memory(const ModelSpec& model, int module, const Grid& grid, int stage,
                         const std::vector<SampleSizes>& samples) {
  const Module& m = model[module];
  const int64_t value = size_of(model.dtype), acc = size_of(acc_of(model.dtype));
  StageMemory memory;
  const auto described = describe_stage(model, module, grid, stage, {.tp = grid.tp - 1});
  for (const Parameter* p : described->parameters()) {
    memory.parameters += numel(p->shard);
    if (p->trainable) memory.trainable += numel(p->shard);
  }
  memory.parameter_bytes =
      memory.parameters * value + memory.trainable * (3 * acc + (value == acc ? 0 : acc));
  int64_t rows = 0;
  for (const SampleSizes& s : samples) rows += m.rows(s);
  const Parts parts = stage_parts(m, stage, grid.stages());
  double kept = 0;
  for (int part = parts.begin; part < parts.end; ++part)
    kept += recomputed(model, module, part) ? static_cast<double>(rows * m.width())
                                            : m.cost(part, samples, grid.tp, model.dtype).kept;
  memory.activation_bytes = static_cast<int64_t>(kept * static_cast<double>(value));
  return memory;
}

// A product whose columns are cut sums the gradient of its input, one whose rows are cut its result.
TensorTraffic tensor_traffic(const ModelSpec& model, int module, const Grid& grid, int stage,
                             const std::vector<SampleSizes>& samples) {
  TensorTraffic t;
  if (grid.tp == 1) return t;
  const Parts parts = stage_parts(model[module], stage, grid.stages());
  const std::vector<PartBackward>& back = model.backward[static_cast<size_t>(module)];
  for (int part = parts.begin; part < parts.end; ++part) {
    const PartCost c = model[module].cost(part, samples, grid.tp, model.dtype);
    t.forward += c.forward;
    if (!back[static_cast<size_t>(part)].any()) continue;
    t.backward += c.backward;
    if (recomputed(model, module, part)) t.backward += c.forward;
  }
  return t;
}

std::vector<GradientBucket> gradient_buckets(const ModelSpec& model, int module, const Grid& grid, int stage,
                                             const Coord& coord, const std::vector<SampleSizes>& samples) {
  const int64_t size = size_of(acc_of(model.dtype));
  const std::vector<PartBackward>& back = model.backward[static_cast<size_t>(module)];
  const auto here = describe_stage(model, module, grid, stage, coord),
             most = describe_stage(model, module, grid, stage, {.tp = grid.tp - 1});
  std::vector<GradientBucket> buckets;
  const auto [begin, end] = here->parts();
  double passed = 0;
  int64_t bytes = 0;
  int from = end;  // the end of the bucket in hand
  for (int part = end - 1; part >= begin; --part) {
    passed += model[module].cost(part, samples, 1, model.dtype).flops *
              (back[static_cast<size_t>(part)].weights + back[static_cast<size_t>(part)].input);
    for (const Parameter* p : most->parameters_of(part))
      if (p->trainable) bytes += numel(p->shard) * size;
    if (bytes < model.bucket_bytes && part > begin) continue;
    if (bytes > 0) buckets.push_back({.parts = {part, from}, .ready = passed, .traffic = {}});
    from = part, bytes = 0;
  }
  for (GradientBucket& b : buckets) {
    b.ready = passed > 0 ? b.ready / passed : 1;
    std::map<Ranks, std::map<std::string, int64_t>> groups;  // elements by name, in the order of their travel
    for (int part = b.parts.begin; part < b.parts.end; ++part)
      for (const Parameter* p : here->parameters_of(part))
        for (const Ranks& group : p->partial)
          if (const int64_t n = numel(p->shard); p->trainable && group.size() > 1 && n > 0)
            groups[group][p->name] = n;
    for (const auto& [group, parameters] : groups) {
      std::vector<int64_t> counts;
      for (const auto& [name, n] : parameters) counts.push_back(n), b.traffic.bytes += n * size;
      b.traffic.messages += static_cast<int64_t>(bucket_ends(counts, kBucketBytes / size).size());
    }
  }
  return buckets;
}

}  // namespace mimo
