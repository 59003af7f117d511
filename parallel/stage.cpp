#include "parallel/stage.h"

namespace mimo {

Tensor& Statistics::on_device() {
  if (!losses.defined()) losses = Tensor::zeros({1}, DType::f64);
  return losses;
}

void Statistics::settle() {
  if (!losses.defined()) return;
  loss_sum += losses.to_vector<double>()[0];
  losses = Tensor();
}

}  // namespace mimo
