// Root mean square norm of each row: r = 1 / sqrt(mean(x^2) + eps), y = w x r.
// Backward: xhat = x r, c = mean(xhat w dy), dx = r (w dy - xhat c), dw += sum_rows dy xhat (two stages,
// fixed order). Statistics in acc_t<T>. Source: Zhang and Sennrich, 2019 (arXiv 1910.07467).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct RmsNormInputs {
  int64_t rows;
  int cols;
  Rows<const T> x;
  const T* w;  // [cols]
};

template <class T>
struct RmsNorm {
  RmsNormInputs<T> in;
  acc_t<T> eps;
  Rows<T> y;
  acc_t<T>* r = nullptr;  // [rows], kept for backward
};

template <class T>
struct RmsNormBackward {
  RmsNormInputs<T> in;
  const acc_t<T>* r;
  Rows<const T> dy;
  Rows<T> dx;
  acc_t<T>* dw = nullptr;  // [cols], added to; null where frozen
};

MIMO_CONTRACT(RmsNorm);
MIMO_CONTRACT(RmsNormBackward);
template <class T>
int64_t workspace(const Cpu&, const RmsNormBackward<T>&);

}  // namespace mimo
