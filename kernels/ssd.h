// Mamba-2 state space scan (SSD), chunked, over packed sequences. Per head h of group g = h / (heads /
// groups):
//   dt_t = clamp(softplus(dt_raw_t + dt_bias), dt_min, dt_max),  A = -exp(a_log),  a_t = dt_t A
//   S_t = exp(a_t) S_{t-1} + dt_t x_t B_t^T  (S in R^{head_dim x state}),   y_t = S_t C_t + D x_t
// Chunk form with s the inclusive cumsum of a inside a chunk: y_i = sum_{j<=i} (C_i . B_j) exp(s_i - s_j)
// dt_j x_j
//   + exp(s_i) H C_i + D x_i,  H' = exp(s_last) H + sum_j exp(s_last - s_j) dt_j x_j B_j^T. Chunks never
//   cross a sequence. `chunk` is the longest that the caller wants; results agree to rounding whatever it is,
//   and a kernel may cut shorter ones (the CPU at most 64 rows) or its own (CUDA, by tile).
// Backward recomputes dt, s and the chunk states; the decay gradient is a sum of like-signed partial terms,
// never a reverse cumsum of differences. Source: Dao and Gu, Transformers are SSMs, 2024 (arXiv 2405.21060).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct Ssd {
  int sequences;
  const int32_t* cu;
  int64_t tokens;
  int heads, head_dim, groups, state, chunk;
  const T* x;  // [tokens, heads * head_dim]
  int64_t x_ld;
  const T* b;  // [tokens, groups * state]
  int64_t b_ld;
  const T* c;  // like b
  int64_t c_ld;
  const T* dt;  // raw, [tokens, heads]
  int64_t dt_ld;
  const acc_t<T>*dt_bias, *a_log, *d;  // [heads]
  acc_t<T> dt_min, dt_max;             // 0 and infinity: no clamp
  const acc_t<T>* state_in;            // [sequences, heads, head_dim, state] or null (zero)
  T* y;                                // like x
  int64_t y_ld;
  acc_t<T>* state_out;  // like state_in, or null
};

template <class T>
struct SsdBackward {
  int sequences;
  const int32_t* cu;
  int64_t tokens;
  int heads, head_dim, groups, state, chunk;
  const T* x;
  int64_t x_ld;
  const T* b;
  int64_t b_ld;
  const T* c;
  int64_t c_ld;
  const T* dt;
  int64_t dt_ld;
  const acc_t<T>*dt_bias, *a_log, *d;
  acc_t<T> dt_min, dt_max;
  const acc_t<T>* state_in;
  const T* dy;
  int64_t dy_ld;
  const acc_t<T>* dstate_out;  // or null (zero)
  T* dx;
  int64_t dx_ld;
  T* db;
  int64_t db_ld;
  T* dc;
  int64_t dc_ld;
  T* ddt;  // gradient of the raw dt
  int64_t ddt_ld;
  acc_t<T>*ddt_bias, *da_log, *dd;  // [heads], added to; each null where frozen
  acc_t<T>* dstate_in;              // or null, overwritten
};

MIMO_CONTRACT(Ssd);
MIMO_CONTRACT(SsdBackward);
template <class T>
int64_t workspace(const Cpu&, const Ssd<T>&);
template <class T>
int64_t workspace(const Cpu&, const SsdBackward<T>&);

}  // namespace mimo
