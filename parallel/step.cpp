#include "parallel/step.h"

#include "tensor/error.h"

namespace mimo {

double& Sums::operator[](const std::string& name) {
  const auto found = values_.find(name);
  MIMO_CHECK(found != values_.end(), "no sum is declared as " + name);
  return found->second;
}

double Sums::operator[](const std::string& name) const { return const_cast<Sums&>(*this)[name]; }

Tensor& Sums::on_device(const std::string& name) {
  (*this)[name];
  Tensor& t = on_device_[name];
  if (!t.defined()) t = Tensor::zeros({1}, DType::f64);
  return t;
}

void Sums::settle() {
  for (const auto& [name, t] : on_device_) values_[name] += t.to_vector<double>()[0];
  on_device_.clear();
}

std::vector<double> Sums::values() const {
  std::vector<double> v;
  for (const auto& [name, value] : values_) v.push_back(value);
  return v;
}

void Sums::set(const std::vector<double>& v) {
  MIMO_CHECK(v.size() == values_.size(), "values for other sums");
  size_t i = 0;
  for (auto& [name, value] : values_) value = v[i++];
}

Tensor Step::enter(const Tensor& x, int part) {
  return record(x.detach(), "enter", {x}, [ready = ready_, node = x.node(), part](const Tensor& dy) {
    accumulate(node, dy);
    if (*ready) (*ready)(part);
  });
}

}  // namespace mimo
