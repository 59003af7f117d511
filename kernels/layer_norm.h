// Layer norm of each row: mean and biased variance, xhat = (x - mean) rstd, y = w xhat + b.
// Backward: g = w dy, dx = rstd (g - mean(g) - xhat mean(g xhat)), dw += sum dy xhat, db += sum dy.
// Forward is exact to the roundings of xhat also where the mean is far above the deviation; mean, as it is
// kept for backward, is rounded to acc_t<T>, which there makes xhat off by |mean| rstd / 2^24.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct LayerNormInputs {
  int64_t rows;
  int cols;
  Rows<const T> x;
  const T* w;  // [cols]
};

template <class T>
struct LayerNorm {
  LayerNormInputs<T> in;
  const T* b;  // [cols]
  acc_t<T> eps;
  Rows<T> y;
  acc_t<T>*mean = nullptr, *rstd = nullptr;  // [rows], kept for backward; both or none
};

template <class T>
struct LayerNormBackward {
  LayerNormInputs<T> in;
  const acc_t<T>*mean, *rstd;
  Rows<const T> dy;
  Rows<T> dx;
  acc_t<T>*dw = nullptr, *db = nullptr;  // [cols], added to; each null where frozen
};

MIMO_CONTRACT(LayerNorm);
MIMO_CONTRACT(LayerNormBackward);
template <class T>
int64_t workspace(const Cpu&, const LayerNormBackward<T>&);

}  // namespace mimo
