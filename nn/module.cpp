#include "nn/module.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "nn/ops.h"
#include "parallel/collectives.h"

namespace mimo {

double ModuleContext::std_of(int64_t inputs) const {
  return init_std > 0 ? init_std : 1 / std::sqrt(static_cast<double>(inputs));
}

Parameter& ParameterSet::make(const std::string& name, Dims shape, const Cut& cut, Initializer init,
                              Precision precision) {
  const ModuleContext& c = context_;
  Parameter p;
  p.name = c.module + "." + name;
  p.shape = shape;
  const bool sharded = cut.axis >= 0 && c.grid.tp > 1;
  if (sharded) {
    const std::vector<int64_t> blocks =
        cut.blocks.empty() ? std::vector<int64_t>{shape[cut.axis]} : cut.blocks;
    p.shard = split(shape, cut.axis, blocks, c.coord.tp, c.grid.tp, cut.uneven);
  } else {
    p.shard = whole(shape);
  }
  const int rank = c.grid.rank(c.coord);
  p.copies = c.grid.group(
      rank, sharded ? std::vector{Axis::cp, Axis::dp} : std::vector{Axis::tp, Axis::cp, Axis::dp});
  p.partial = {c.grid.group(rank, {Axis::cp, Axis::dp})};
  p.init = init;
  p.decay = shape.size() > 1 && !name.ends_with(".bias");
  p.trainable = c.trainable;
  if (c.values) materialize(p, precision == Precision::full ? acc_of(c.dtype) : c.dtype, c.seed);
  parameters_.push_back(std::move(p));
  return parameters_.back();
}

std::vector<Parameter*> ParameterSet::all() {
  std::vector<Parameter*> out;
  for (Parameter& p : parameters_) out.push_back(&p);
  return out;
}

Tensor Linear::operator()(const Tensor& x) const {
  if (!row_parallel) return linear(copy_to_group(x, group), *weight, bias);
  if (!group || group->size() == 1) return linear(x, *weight, bias);
  const Tensor y = reduce_from_group(linear(x, *weight), group);
  return bias ? add_bias(y, *bias) : y;
}

Linear column_linear(ParameterSet& set, const std::string& name, int64_t in, int64_t out, bool bias,
                     std::vector<int64_t> blocks) {
  const Cut cut{0, std::move(blocks), false};
  Linear l{&set.make(name + ".weight", {out, in}, cut, normal(set.context().std_of(in))), nullptr,
           set.group(), false};
  if (bias) l.bias = &set.make(name + ".bias", {out}, cut, constant(0));
  return l;
}

Linear row_linear(ParameterSet& set, const std::string& name, int64_t in, int64_t out, bool bias,
                  int residual_layers) {
  const double std = set.context().std_of(in) / std::sqrt(residual_layers > 0 ? 2.0 * residual_layers : 1.0);
  Linear l{&set.make(name + ".weight", {out, in}, kColumns, normal(std)), nullptr, set.group(), true};
  if (bias) l.bias = &set.make(name + ".bias", {out}, kReplicated, constant(0));
  return l;
}

Linear replicated_linear(ParameterSet& set, const std::string& name, int64_t in, int64_t out, bool bias) {
  Linear l{&set.make(name + ".weight", {out, in}, kReplicated, normal(set.context().std_of(in))), nullptr,
           nullptr, false};
  if (bias) l.bias = &set.make(name + ".bias", {out}, kReplicated, constant(0));
  return l;
}

std::vector<int> split_layers(const std::vector<double>& cost, int stages) {
  const int n = static_cast<int>(cost.size());
  if (n < stages)
    throw std::invalid_argument(std::to_string(stages) + " stages for " + std::to_string(n) + " layers");
  std::vector<double> sum(n + 1, 0);
  for (int i = 0; i < n; ++i) sum[i + 1] = sum[i] + cost[i];
  // best[s][i]: the least possible dearest stage when the first i layers fill s stages.
  const double inf = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> best(stages + 1, std::vector<double>(n + 1, inf));
  std::vector<std::vector<int>> from(stages + 1, std::vector<int>(n + 1, 0));
  best[0][0] = 0;
  for (int s = 1; s <= stages; ++s)
    for (int i = s; i <= n; ++i)
      for (int j = s - 1; j < i; ++j) {
        const double dearest = std::max(best[s - 1][j], sum[i] - sum[j]);
        if (dearest < best[s][i]) best[s][i] = dearest, from[s][i] = j;
      }
  std::vector<int> begin(stages + 1, n);
  for (int s = stages, i = n; s > 0; --s) begin[s - 1] = i = from[s][i];
  return begin;
}

}  // namespace mimo
