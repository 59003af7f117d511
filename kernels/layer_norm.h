// Layer norm of each row: mean and biased variance, xhat = (x - mean) rstd, y = w xhat + b.
// Backward: g = w dy, dx = rstd (g - mean(g) - xhat mean(g xhat)), dw += sum dy xhat, db += sum dy.
// Forward is exact to the roundings of xhat also where the mean is far above the deviation; mean, as it is
// kept for backward, is rounded to acc_t<T>, which there makes xhat off by |mean| rstd / 2^24.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct LayerNorm {
  int64_t rows;
  int cols;
  const T* x;
  int64_t x_ld;
  const T *w, *b;  // [cols]
  acc_t<T> eps;
  T* y;
  int64_t y_ld;
  acc_t<T>*mean, *rstd;  // [rows], kept for backward; or both null
};

template <class T>
struct LayerNormBackward {
  int64_t rows;
  int cols;
  const T* x;
  int64_t x_ld;
  const T* w;
  const acc_t<T>*mean, *rstd;
  const T* dy;
  int64_t dy_ld;
  T* dx;
  int64_t dx_ld;
  acc_t<T>*dw, *db;  // [cols], added to; each null where frozen
};

MIMO_CONTRACT(LayerNorm);
MIMO_CONTRACT(LayerNormBackward);
template <class T>
int64_t workspace(const Cpu&, const LayerNormBackward<T>&);

}  // namespace mimo
