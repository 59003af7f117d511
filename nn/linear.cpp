#include "nn/linear.h"

#include <cmath>

#include "nn/ops.h"
#include "parallel/collectives.h"

namespace mimo {

Tensor Linear::operator()(const Tensor& x) const {
  if (!row_parallel) return linear(copy_to_group(x, group), *weight, bias);
  if (!group || group->size() == 1) return linear(x, *weight, bias);
  const Tensor y = reduce_from_group(linear(x, *weight), group);
  return bias ? add_bias(y, *bias) : y;
}

Linear column_linear(ParameterSet& set, const std::string& name, int64_t in, int64_t out, bool bias,
                     std::vector<int64_t> blocks) {
  const Cut cut{.axis = 0, .blocks = std::move(blocks)};
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

}  // namespace mimo
