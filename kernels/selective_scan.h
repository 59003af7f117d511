// Mamba-1 selective scan over packed sequences. Per channel c and state n:
//   delta_t = softplus(delta_raw_t + delta_bias),  A = -exp(a_log),
//   h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,   y_t = (sum_n C_t h_t + D u_t) silu(z_t)
// z null: no gate. Source: Gu and Dao, Mamba, 2023 (arXiv 2312.00752).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct SelectiveScan {
  int sequences;
  const int32_t* cu;
  int64_t tokens;
  int channels, state;
  const T* u;  // [tokens, channels]
  int64_t u_ld;
  const T* delta;  // raw, [tokens, channels]
  int64_t delta_ld;
  const T* b;  // [tokens, state]
  int64_t b_ld;
  const T* c;
  int64_t c_ld;
  const T* z;  // [tokens, channels] or null
  int64_t z_ld;
  const acc_t<T>* delta_bias;  // [channels] or null
  const acc_t<T>* a_log;       // [channels, state]
  const acc_t<T>* d;           // [channels]
  const acc_t<T>* state_in;    // [sequences, channels, state] or null
  T* y;
  int64_t y_ld;
  acc_t<T>* state_out;  // or null
};

template <class T>
struct SelectiveScanBackward {
  int sequences;
  const int32_t* cu;
  int64_t tokens;
  int channels, state;
  const T* u;
  int64_t u_ld;
  const T* delta;
  int64_t delta_ld;
  const T* b;
  int64_t b_ld;
  const T* c;
  int64_t c_ld;
  const T* z;
  int64_t z_ld;
  const acc_t<T>*delta_bias, *a_log, *d;
  const acc_t<T>* state_in;
  const T* dy;
  int64_t dy_ld;
  const acc_t<T>* dstate_out;  // or null
  T* du;
  int64_t du_ld;
  T* ddelta;  // gradient of the raw delta
  int64_t ddelta_ld;
  T* db;
  int64_t db_ld;
  T* dc;
  int64_t dc_ld;
  T* dz;  // null where z is
  int64_t dz_ld;
  acc_t<T>*ddelta_bias, *da_log,
      *dd;              // added to; each null where frozen, ddelta_bias also where delta_bias is
  acc_t<T>* dstate_in;  // or null, overwritten
};

MIMO_CONTRACT(SelectiveScan);
MIMO_CONTRACT(SelectiveScanBackward);
template <class T>
int64_t workspace(const Cpu&, const SelectiveScan<T>&);
template <class T>
int64_t workspace(const Cpu&, const SelectiveScanBackward<T>&);

}  // namespace mimo
