// Mamba-2's gated grouped RMS norm (gate, then norm): u = y silu(z); per group of cols / groups columns
//   r = 1 / sqrt(mean(u^2) + eps), out = w u r.
// Backward: xhat = u r, c = mean_group(xhat w dout), du = r (w dout - xhat c), dw += sum dout xhat,
//   dy = du silu(z), dz = du y silu'(z).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct GatedNormInputs {
  int64_t rows;
  int cols, groups;
  Rows<const T> y, z;
  const T* w;  // [cols]
};

template <class T>
struct GatedNorm {
  GatedNormInputs<T> in;
  acc_t<T> eps;
  Rows<T> out;
  acc_t<T>* r = nullptr;  // [rows, groups], kept for backward
};

template <class T>
struct GatedNormBackward {
  GatedNormInputs<T> in;
  const acc_t<T>* r;
  Rows<const T> dout;
  Rows<T> dy, dz;
  acc_t<T>* dw = nullptr;  // [cols], added to; null where frozen
};

MIMO_CONTRACT(GatedNorm);
MIMO_CONTRACT(GatedNormBackward);
template <class T>
int64_t workspace(const Cpu&, const GatedNormBackward<T>&);

}  // namespace mimo
