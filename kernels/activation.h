// Elementwise activations, computed in acc_t<T>, rounded once; backward recomputes from x.
//   relu2       max(x, 0)^2
//   gelu_erf    x Phi(x)
//   gelu_tanh   x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2
//   quick_gelu  x sigmoid(1.702 x)
//   silu        x sigmoid(x)
// SwiGlu: x = [gate | up] of 2 cols columns, y = silu(gate) up.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

enum class ActivationKind : uint8_t { relu2, gelu_erf, gelu_tanh, quick_gelu, silu };

template <class T>
struct ActivationInputs {
  ActivationKind kind;
  int64_t rows, cols;
  Rows<const T> x;
};

template <class T>
struct Activation {
  ActivationInputs<T> in;
  Rows<T> y;
};

template <class T>
struct ActivationBackward {
  ActivationInputs<T> in;
  Rows<const T> dy;
  Rows<T> dx;
};

template <class T>
struct SwiGluInputs {
  int64_t rows, cols;  // of y
  Rows<const T> x;     // [rows, 2 cols]
};

template <class T>
struct SwiGlu {
  SwiGluInputs<T> in;
  Rows<T> y;
};

template <class T>
struct SwiGluBackward {
  SwiGluInputs<T> in;
  Rows<const T> dy;
  Rows<T> dx;  // [rows, 2 cols]
};

MIMO_CONTRACT(Activation);
MIMO_CONTRACT(ActivationBackward);
MIMO_CONTRACT(SwiGlu);
MIMO_CONTRACT(SwiGluBackward);

}  // namespace mimo
