// Activations by the names that configurations use.
#pragma once
#include <string>

#include "kernels/activation.h"

namespace mimo {

// relu2, gelu, gelu_tanh, quick_gelu, silu; throws std::invalid_argument for another.
ActivationKind activation_kind(const std::string& name);

}  // namespace mimo
