// General matrix product, row-major: C = alpha op(A) op(B) + beta C (+ bias, broadcast over rows).
//   op(A) is [m, k], op(B) is [k, n], C is [m, n]; trans_a: A is stored [k, m]; trans_b: B is stored [n, k].
// Sums in acc_t<T>. Gemm writes C in T, GemmAccumulate in acc_t<T> (weight gradients: beta = 1).
// k = 0 scales C by beta. beta = 0 never reads C.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct Gemm {
  bool trans_a = false, trans_b = false;
  int64_t m, n, k;
  acc_t<T> alpha = 1;
  Rows<const T> a, b;
  acc_t<T> beta = 0;
  Rows<T> c;
  const T* bias = nullptr;  // [n]
};

template <class T>
struct GemmAccumulate {
  bool trans_a = false, trans_b = false;
  int64_t m, n, k;
  acc_t<T> alpha = 1;
  Rows<const T> a, b;
  acc_t<T> beta = 1;
  Rows<acc_t<T>> c;
};

MIMO_CONTRACT(Gemm);
MIMO_CONTRACT(GemmAccumulate);
template <class T>
int64_t workspace(const Cpu&, const Gemm<T>&);
template <class T>
int64_t workspace(const Cpu&, const GemmAccumulate<T>&);

}  // namespace mimo
