// Softmax attention over packed sequences, tiled with an online softmax: O(T) memory.
//   S_ij = scale q_i . k_j,   P = softmax over the visible j,   o_i = sum_j P_ij v_j,   lse_i = ln sum_j
//   exp(S_ij)
// Sequence s holds query rows [cu_q[s], cu_q[s+1]) and key rows [cu_k[s], cu_k[s+1]). Row i of its queries
// has global position first_q[s] + i, row j of its keys first_k[s] + j (null: 0). Causal: key j is visible to
// query i iff its global position is not greater. Query head h reads kv head h / (heads / kv_heads). A query
// that sees no key has o = 0 and lse = -inf. Backward: P_ij = exp(S_ij - lse_i), delta_i = sum_d do_i o_i, dS
// = P (do_i . v_j - delta_i); dq = scale dS k,
//   dk = scale dS^T q, dv = P^T do, the last two summed over the query heads of a kv head. lse and delta may
//   come from
// outside (partial attention over distributed keys: the final lse makes P the global probability).
// Source: Dao, FlashAttention-2, 2023 (arXiv 2307.08691).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct AttentionInputs {
  int sequences;
  const int32_t *cu_q, *cu_k;                            // [sequences + 1]
  const int64_t *first_q = nullptr, *first_k = nullptr;  // [sequences]
  int64_t tokens_q, tokens_k;     // cu_q[sequences], cu_k[sequences], known to the host
  int heads, kv_heads, head_dim;  // head_dim 8 to 256, a multiple of 8
  bool causal;
  acc_t<T> scale;
  Rows<const T> q;     // [tokens_q, heads * head_dim]
  Rows<const T> k, v;  // [tokens_k, kv_heads * head_dim]
};

template <class T>
struct Attention {
  AttentionInputs<T> in;
  Rows<T> o;      // like q
  acc_t<T>* lse;  // [heads, tokens_q]
};

template <class T>
struct AttentionBackward {
  AttentionInputs<T> in;
  Rows<const T> o = {};             // not read where delta is given
  const acc_t<T>* lse;              // [heads, tokens_q]
  const acc_t<T>* delta = nullptr;  // [heads, tokens_q]; null: computed from d_o and o
  Rows<const T> d_o;
  Rows<T> dq, dk, dv;
};

// Merges two partial results over different keys into the first:
//   lse = ln(exp(lse_a) + exp(lse_b)),  o = o_a exp(lse_a - lse) + o_b exp(lse_b - lse); (-inf, -inf) gives 0
//   and -inf.
template <class T>
struct AttentionMerge {
  int64_t tokens;
  int heads, head_dim;
  Rows<T> o_a;      // [tokens, heads * head_dim], in and out
  acc_t<T>* lse_a;  // [heads, tokens], in and out
  Rows<const T> o_b;
  const acc_t<T>* lse_b;
};

MIMO_CONTRACT(Attention);
MIMO_CONTRACT(AttentionBackward);
MIMO_CONTRACT(AttentionMerge);
template <class T>
int64_t workspace(const Cpu&, const Attention<T>&);
template <class T>
int64_t workspace(const Cpu&, const AttentionBackward<T>&);

}  // namespace mimo
