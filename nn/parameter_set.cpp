#include "nn/parameter_set.h"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>

#include "tensor/error.h"

namespace mimo {

bool Freezing::trainable(const std::string& parameter) const {
  const auto matches = [&](const std::string& p) { return fnmatch(p.c_str(), parameter.c_str(), 0) == 0; };
  return std::none_of(freeze.begin(), freeze.end(), matches) ||
         std::any_of(unfreeze.begin(), unfreeze.end(), matches);
}

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
  p.trainable = c.freezing.trainable(p.name);
  if (c.values) materialize(p, precision == Precision::full ? acc_of(c.dtype) : c.dtype, c.seed);
  parameters_.push_back(std::move(p));
  return parameters_.back();
}

void ParameterSet::begin_part(int part) {
  const size_t index = static_cast<size_t>(part - context_.parts.begin);
  MIMO_CHECK(context_.parts.contains(part) && index >= begins_.size(), "parts out of order");
  begins_.resize(index + 1, parameters_.size());
}

std::vector<Parameter*> ParameterSet::all() {
  std::vector<Parameter*> out;
  for (Parameter& p : parameters_) out.push_back(&p);
  return out;
}

std::vector<Parameter*> ParameterSet::of_part(int part) {
  std::vector<Parameter*> out;
  const size_t index = static_cast<size_t>(part - context_.parts.begin);
  if (index >= begins_.size()) return out;
  const size_t end = index + 1 < begins_.size() ? begins_[index + 1] : parameters_.size();
  for (size_t i = begins_[index]; i < end; ++i) out.push_back(&parameters_[i]);
  return out;
}

bool ParameterSet::trainable(int part) const {
  const std::vector<Parameter*> of = const_cast<ParameterSet*>(this)->of_part(part);
  return std::any_of(of.begin(), of.end(), [](const Parameter* p) { return p->trainable; });
}

}  // namespace mimo
