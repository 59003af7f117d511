// What attention's forward and backward share: which sequence and tile a task is, and which keys a query
// sees.
#pragma once
#include <algorithm>
#include <limits>

#include "kernels/attention.h"
#include "kernels/cpu/threads.h"
#include "kernels/cpu/tile.h"
#include "kernels/portable/scratch.h"

namespace mimo::attention {

// Queries and keys of one tile of scores; it stays in L2 with its operands. Many queries, because every tile
// of keys is read again for each: with the row stride of a fused projection they come from beyond L2.
template <class A>
inline constexpr int64_t query_tile = 12 * lanes<A>;
inline constexpr int64_t key_tile = 64;

template <class T>
void check(const AttentionInputs<T>& in) {
  if (in.head_dim < 8 || in.head_dim > 256 || in.head_dim % 8 != 0)
    throw std::invalid_argument("attention: expected head_dim 8 to 256 and a multiple of 8, found " +
                                std::to_string(in.head_dim));
  if (in.kv_heads < 1 || in.heads % in.kv_heads != 0)
    throw std::invalid_argument("attention: expected heads to be a multiple of kv_heads, found heads " +
                                std::to_string(in.heads) + ", kv_heads " + std::to_string(in.kv_heads));
}

// One packed sequence. Key j is visible to query i iff j < visible(i).
struct Sequence {
  int64_t q_begin, q_len, k_begin, k_len;
  int64_t shift;  // global position of key 0 less that of query 0
  bool causal;

  template <class T>
  Sequence(const AttentionInputs<T>& in, int64_t s)
      : q_begin(in.cu_q[s]),
        q_len(in.cu_q[s + 1] - q_begin),
        k_begin(in.cu_k[s]),
        k_len(in.cu_k[s + 1] - k_begin),
        shift((in.first_k ? in.first_k[s] : 0) - (in.first_q ? in.first_q[s] : 0)),
        causal(in.causal) {}

  int64_t visible(int64_t i) const { return causal ? std::clamp<int64_t>(i - shift + 1, 0, k_len) : k_len; }

  // The first query of a tile (of `lanes`) that sees key j, clamped to [0, n].
  int64_t first_query(int64_t j, int64_t q0, int64_t n) const {
    return causal ? std::clamp<int64_t>(j + shift - q0, 0, n) : 0;
  }

  // Scores S^T [keys, queries] of a tile at (k0, q0), queries from `from` on: -inf where the key is not
  // visible.
  template <class A>
  void mask(int64_t k0, int64_t keys, int64_t q0, int64_t queries, int64_t from, A* s, int64_t s_ld) const {
    for (int64_t j = std::max<int64_t>(visible(q0) - k0, 0); j < keys; ++j)
      std::fill(s + j * s_ld + from, s + j * s_ld + first_query(k0 + j, q0, queries),
                -std::numeric_limits<A>::infinity());
  }
};

inline int64_t tiles(int64_t length, int64_t tile) { return (length + tile - 1) / tile; }

// Tasks number (sequence, head, part of it) in that order; a sequence has ceil(length / tile) parts, or
// `least`.
class Tasks {
 public:
  struct Task {
    int64_t sequence, head, part, parts;
  };

  // starts: scratch of sequences + 1.
  Tasks(int64_t* starts, int64_t sequences, const int32_t* cu, int64_t tile, int64_t heads, int64_t least)
      : starts_(starts), sequences_(sequences), heads_(heads) {
    starts[0] = 0;
    for (int64_t s = 0; s < sequences; ++s)
      starts[s + 1] = starts[s] + std::max(least, tiles(cu[s + 1] - cu[s], tile));
  }

  int64_t parts_before(int64_t sequence) const { return starts_[sequence]; }
  int64_t count() const { return starts_[sequences_] * heads_; }

  Task operator[](int64_t t) const {
    const int64_t s = std::upper_bound(starts_, starts_ + sequences_, t / heads_) - starts_ - 1;
    const int64_t within = t - starts_[s] * heads_, n = starts_[s + 1] - starts_[s];
    return {s, within / n, within % n, n};
  }

 private:
  const int64_t* starts_;
  int64_t sequences_, heads_;
};

// Of the two products of the forward over all heads, as bytes moved: about four multiply-adds take as long.
template <class T>
int64_t work(const AttentionInputs<T>& in) {
  int64_t pairs = 0;
  for (int s = 0; s < in.sequences; ++s) pairs += Sequence(in, s).q_len * Sequence(in, s).k_len;
  return pairs * in.heads * in.head_dim / 2;
}

}  // namespace mimo::attention
