// Mamba-2's gated grouped RMS norm (gate, then norm): u = y silu(z); per group of cols / groups columns
//   r = 1 / sqrt(mean(u^2) + eps), out = w u r.
// Backward: xhat = u r, c = mean_group(xhat w dout), du = r (w dout - xhat c), dw += sum dout xhat,
//   dy = du silu(z), dz = du y silu'(z).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct GatedNorm {
  int64_t rows;
  int cols, groups;
  const T* y;
  int64_t y_ld;
  const T* z;
  int64_t z_ld;
  const T* w;  // [cols]
  acc_t<T> eps;
  T* out;
  int64_t out_ld;
  acc_t<T>* r;  // [rows, groups] or null
};

template <class T>
struct GatedNormBackward {
  int64_t rows;
  int cols, groups;
  const T* y;
  int64_t y_ld;
  const T* z;
  int64_t z_ld;
  const T* w;
  const acc_t<T>* r;
  const T* dout;
  int64_t dout_ld;
  T* dy;
  int64_t dy_ld;
  T* dz;
  int64_t dz_ld;
  acc_t<T>* dw;  // [cols], added to; null where frozen
};

MIMO_CONTRACT(GatedNorm);
MIMO_CONTRACT(GatedNormBackward);
template <class T>
int64_t workspace(const Cpu&, const GatedNormBackward<T>&);

}  // namespace mimo
