#include "nn/activations.h"

#include <stdexcept>

namespace mimo {

ActivationKind activation_kind(const std::string& name) {
  if (name == "relu2") return ActivationKind::relu2;
  if (name == "gelu") return ActivationKind::gelu_erf;
  if (name == "gelu_tanh") return ActivationKind::gelu_tanh;
  if (name == "quick_gelu") return ActivationKind::quick_gelu;
  if (name == "silu") return ActivationKind::silu;
  throw std::invalid_argument("no activation '" + name + "'");
}

}  // namespace mimo
