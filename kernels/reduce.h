// Sums over many tensors at once, in double and in a fixed order (two stages), the result left on the device:
//   result[0] = sum of squares of the finite elements of all tensors, result[1] = number of non-finite
//   elements.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct SumSquares {
  int tensors;
  int64_t total;      // elements of all tensors
  const T* const* x;  // [tensors]
  const int64_t* n;   // [tensors]
  double* result;     // [2], overwritten
};

MIMO_CONTRACT(SumSquares);
template <class T>
int64_t workspace(const Cpu&, const SumSquares<T>&);

}  // namespace mimo
