// Root mean square norm of each row: r = 1 / sqrt(mean(x^2) + eps), y = w x r.
// Backward: xhat = x r, c = mean(xhat w dy), dx = r (w dy - xhat c), dw += sum_rows dy xhat (two stages,
// fixed order). Statistics in acc_t<T>. Source: Zhang and Sennrich, 2019 (arXiv 1910.07467).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct RmsNorm {
  int64_t rows;
  int cols;
  const T* x;
  int64_t x_ld;
  const T* w;  // [cols]
  acc_t<T> eps;
  T* y;
  int64_t y_ld;
  acc_t<T>* r;  // [rows], kept for backward; or null
};

template <class T>
struct RmsNormBackward {
  int64_t rows;
  int cols;
  const T* x;
  int64_t x_ld;
  const T* w;
  const acc_t<T>* r;
  const T* dy;
  int64_t dy_ld;
  T* dx;
  int64_t dx_ld;
  acc_t<T>* dw;  // [cols], added to; null where frozen
};

MIMO_CONTRACT(RmsNorm);
MIMO_CONTRACT(RmsNormBackward);
template <class T>
int64_t workspace(const Cpu&, const RmsNormBackward<T>&);

}  // namespace mimo
