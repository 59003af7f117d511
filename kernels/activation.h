// Elementwise activations, computed in acc_t<T>, rounded once; backward recomputes from x.
//   relu2: max(x, 0)^2              gelu_erf: x Phi(x)         gelu_tanh: x (1 + tanh(sqrt(2/pi) (x +
//   0.044715 x^3))) / 2 quick_gelu: x sigmoid(1.702 x)  silu: x sigmoid(x)
// SwiGlu: x = [gate | up] of 2 cols columns, y = silu(gate) up.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

enum class ActivationKind : uint8_t { relu2, gelu_erf, gelu_tanh, quick_gelu, silu };

template <class T>
struct Activation {
  ActivationKind kind;
  int64_t rows;
  int64_t cols;
  const T* x;
  int64_t x_ld;
  T* y;
  int64_t y_ld;
};

template <class T>
struct ActivationBackward {
  ActivationKind kind;
  int64_t rows;
  int64_t cols;
  const T* x;
  int64_t x_ld;
  const T* dy;
  int64_t dy_ld;
  T* dx;
  int64_t dx_ld;
};

template <class T>
struct SwiGlu {
  int64_t rows;
  int64_t cols;  // of y
  const T* x;    // [rows, 2 cols]
  int64_t x_ld;
  T* y;
  int64_t y_ld;
};

template <class T>
struct SwiGluBackward {
  int64_t rows;
  int64_t cols;
  const T* x;
  int64_t x_ld;
  const T* dy;
  int64_t dy_ld;
  T* dx;  // [rows, 2 cols]
  int64_t dx_ld;
};

MIMO_CONTRACT(Activation);
MIMO_CONTRACT(ActivationBackward);
MIMO_CONTRACT(SwiGlu);
MIMO_CONTRACT(SwiGluBackward);

}  // namespace mimo
