// Mamba-1 selective scan over packed sequences. Per channel c and state n:
//   delta_t = softplus(delta_raw_t + delta_bias),  A = -exp(a_log),
//   h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,   y_t = (sum_n C_t h_t + D u_t) silu(z_t)
// z null: no gate. Source: Gu and Dao, Mamba, 2023 (arXiv 2312.00752).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct SelectiveScanInputs {
  int sequences;
  const int32_t* cu;
  int64_t tokens;
  int channels, state;
  Rows<const T> u;                       // [tokens, channels]
  Rows<const T> delta;                   // raw, [tokens, channels]
  Rows<const T> b, c;                    // [tokens, state]
  Rows<const T> z = {};                  // [tokens, channels] or null
  const acc_t<T>* delta_bias = nullptr;  // [channels]
  const acc_t<T>* a_log;                 // [channels, state]
  const acc_t<T>* d;                     // [channels]
  const acc_t<T>* state_in = nullptr;    // [sequences, channels, state]
};

template <class T>
struct SelectiveScan {
  SelectiveScanInputs<T> in;
  Rows<T> y;
  acc_t<T>* state_out = nullptr;
};

template <class T>
struct SelectiveScanBackward {
  SelectiveScanInputs<T> in;
  Rows<const T> dy;
  const acc_t<T>* dstate_out = nullptr;
  Rows<T> du, ddelta;  // ddelta: gradient of the raw delta
  Rows<T> db, dc;
  Rows<T> dz = {};  // null where z is
  // Added to; each null where frozen, ddelta_bias also where delta_bias is.
  acc_t<T>*ddelta_bias = nullptr, *da_log = nullptr, *dd = nullptr;
  acc_t<T>* dstate_in = nullptr;  // overwritten
};

MIMO_CONTRACT(SelectiveScan);
MIMO_CONTRACT(SelectiveScanBackward);
template <class T>
int64_t workspace(const Cpu&, const SelectiveScan<T>&);
template <class T>
int64_t workspace(const Cpu&, const SelectiveScanBackward<T>&);

}  // namespace mimo
