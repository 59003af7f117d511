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
#include <limits>

#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct SsdInputs {
  int sequences;
  const int32_t* cu;
  int64_t tokens;
  int heads, head_dim, groups, state, chunk;
  Rows<const T> x;                     // [tokens, heads * head_dim]
  Rows<const T> b, c;                  // [tokens, groups * state]
  Rows<const T> dt;                    // raw, [tokens, heads]
  const acc_t<T>*dt_bias, *a_log, *d;  // [heads]
  acc_t<T> dt_min = 0, dt_max = std::numeric_limits<acc_t<T>>::infinity();
  const acc_t<T>* state_in = nullptr;  // [sequences, heads, head_dim, state]; null: zero
};

template <class T>
struct Ssd {
  SsdInputs<T> in;
  Rows<T> y;                      // like x
  acc_t<T>* state_out = nullptr;  // like state_in
};

template <class T>
struct SsdBackward {
  SsdInputs<T> in;
  Rows<const T> dy;
  const acc_t<T>* dstate_out = nullptr;  // null: zero
  Rows<T> dx, db, dc;
  Rows<T> ddt;                                                    // gradient of the raw dt
  acc_t<T>*ddt_bias = nullptr, *da_log = nullptr, *dd = nullptr;  // [heads], added to; each null where frozen
  acc_t<T>* dstate_in = nullptr;                                  // overwritten
};

MIMO_CONTRACT(Ssd);
MIMO_CONTRACT(SsdBackward);
template <class T>
int64_t workspace(const Cpu&, const Ssd<T>&);
template <class T>
int64_t workspace(const Cpu&, const SsdBackward<T>&);

}  // namespace mimo
