#include "nn/parameter_set.h"

#include <cmath>

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
  place(p, cut, c.grid, c.coord);
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

}  // namespace mimo
