// Backward of attention on the CPU: five products a pair of tiles, in the transposed form of attention.cpp.
// A task is one block of keys of one kv head: it keeps K, V, dK and dV of the block and walks over the query
// tiles of the group's heads that see it. Its share of dQ is added to that of the blocks before it, in their
// order: it waits for its turn at the query tile, which an earlier task, already running or done, passes on.
// So sums do not depend on the number of threads, and nothing is computed twice.
#include <atomic>
#include <limits>
#include <thread>

#include "kernels/attention.h"
#include "kernels/cpu/attention_tiles.h"

namespace mimo {
namespace {

using attention::key_tile;
using attention::query_tile;
using attention::Sequence;
using attention::Tasks;
using attention::tiles;

constexpr int64_t key_block = 4 * key_tile;

template <class A>
struct Block {
  A *k, *v, *dk, *dv;             // [key_block, dim]
  A *q, *d_o, *q_t, *d_o_t, *dq;  // [query_tile, dim], transposed [dim, query_tile]; q is scaled
  A *p, *ds, *lse, *delta;        // [key_tile, query_tile], [query_tile]
  Block(int64_t head_dim, Scratch& scratch) {
    const int64_t dim = tile::padded<A>(head_dim);
    for (A** x : {&k, &v, &dk, &dv}) *x = scratch.take<A>(key_block * dim);
    for (A** x : {&q, &d_o, &q_t, &d_o_t, &dq}) *x = scratch.take<A>(query_tile<A> * dim);
    for (A** x : {&p, &ds}) *x = scratch.take<A>(key_tile * query_tile<A>);
    for (A** x : {&lse, &delta}) *x = scratch.take<A>(query_tile<A>);
  }
  static int64_t bytes(int64_t head_dim) {
    Scratch scratch;
    Block(head_dim, scratch);
    return scratch.bytes();
  }
};

template <class T>
struct Backward {
  using A = acc_t<T>;
  static constexpr A inf = std::numeric_limits<A>::infinity();
  const AttentionBackward<T>& op;
  const Tasks& query_tiles;
  int32_t* turns;  // [heads x query tiles]: the key block whose turn it is
  Rows<A> dq_sum;  // [tokens_q, heads * head_dim]: dq before scaling and rounding; dq itself if T is A

  void load_queries(const Block<A>& t, int64_t row0, int64_t queries, int64_t head) const {
    const int64_t width = tile::padded<A>(queries), dim = tile::padded<A>(op.in.head_dim);
    const int64_t column = head * op.in.head_dim;
    tile::load_rows<true>(queries, op.in.head_dim, op.in.q[row0] + column, op.in.q.ld, t.q, op.in.scale);
    tile::load_rows<true>(queries, op.in.head_dim, op.d_o[row0] + column, op.d_o.ld, t.d_o);
    tile::transpose(width, dim, t.q, dim, t.q_t, width);
    tile::transpose(width, dim, t.d_o, dim, t.d_o_t, width);
    std::fill(t.dq, t.dq + queries * dim, A(0));
    // exp(S - inf) = 0 for queries that see no key and for the padding.
    std::fill(t.lse, t.lse + width, inf);
    std::fill(t.delta, t.delta + width, A(0));
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t at = head * op.in.tokens_q + row0 + i;
      if (op.lse[at] != -inf) t.lse[i] = op.lse[at];
      if (op.delta) {
        t.delta[i] = op.delta[at];
        continue;
      }
      const T* o = op.o[row0 + i] + column;
      A sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t d = 0; d < op.in.head_dim; ++d) sum += t.d_o[i * dim + d] * static_cast<A>(o[d]);
      t.delta[i] = sum;
    }
  }

  // On entry p holds S^T and ds holds dP^T; on exit P^T and dS^T.
  static void softmax_gradient(const Block<A>& t, int64_t keys, int64_t from, int64_t width) {
    for (int64_t i = from; i < width; i += lanes<A>) {
      const Vec<A> lse = load(t.lse + i), delta = load(t.delta + i);
      for (int64_t j = 0; j < keys; ++j) {
        const Vec<A> p = fast_exp(load(t.p + j * width + i) - lse);
        store(t.p + j * width + i, p);
        store(t.ds + j * width + i, p * (load(t.ds + j * width + i) - delta));
      }
    }
  }

  // The share of one block of keys in dq of one query tile, after those of the blocks before it.
  void add_dq(const Block<A>& t, int64_t row0, int64_t queries, int64_t head, bool first, bool last) const {
    const int64_t dim = tile::padded<A>(op.in.head_dim);
    for (int64_t i = 0; i < queries; ++i) {
      A* x = t.dq + i * dim;
      A* sum = dq_sum[row0 + i] + head * op.in.head_dim;
      T* dq = op.dq[row0 + i] + head * op.in.head_dim;
      if (!first)
#pragma omp simd
        for (int64_t d = 0; d < op.in.head_dim; ++d) x[d] += sum[d];
      if (last)
#pragma omp simd
        for (int64_t d = 0; d < op.in.head_dim; ++d) dq[d] = T(x[d] * op.in.scale);
      else
        std::copy(x, x + op.in.head_dim, sum);
    }
  }

  void operator()(const Block<A>& t, const Tasks::Task& task) const {
    const Sequence seq(op.in, task.sequence);
    const int64_t dim = tile::padded<A>(op.in.head_dim), group = op.in.heads / op.in.kv_heads;
    const int64_t begin = task.part * key_block, block = std::min(key_block, seq.k_len - begin);
    const int64_t row = seq.k_begin + begin, column = task.head * op.in.head_dim;
    tile::load_rows<false>(block, op.in.head_dim, op.in.k[row] + column, op.in.k.ld, t.k);
    tile::load_rows<false>(block, op.in.head_dim, op.in.v[row] + column, op.in.v.ld, t.v);
    std::fill(t.dk, t.dk + block * dim, A(0));
    std::fill(t.dv, t.dv + block * dim, A(0));

    const int64_t parts = tiles(seq.q_len, query_tile<A>);
    for (int64_t head = task.head * group; head < (task.head + 1) * group; ++head)
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t q0 = part * query_tile<A>, queries = std::min(query_tile<A>, seq.q_len - q0);
        const int64_t end = seq.visible(q0 + queries - 1);
        const bool first = begin == 0, last = begin + key_block >= end;
        if (!first && begin >= end) continue;  // the first block visits every tile, if only to write zeros
        load_queries(t, seq.q_begin + q0, queries, head);
        const int64_t width = tile::padded<A>(queries);
        for (int64_t k0 = begin; k0 < std::min(begin + block, end); k0 += key_tile) {
          const int64_t keys = std::min({key_tile, begin + block - k0, end - k0}), at = (k0 - begin) * dim;
          const int64_t from = seq.first_query(k0, q0, queries) / lanes<A> * lanes<A>, n = width - from;
          tile::product<false, false>(keys, n, op.in.head_dim, t.k + at, dim, t.q_t + from, width, t.p + from,
                                      width);
          tile::product<false, false>(keys, n, op.in.head_dim, t.v + at, dim, t.d_o_t + from, width,
                                      t.ds + from, width);
          seq.mask(k0, keys, q0, queries, from, t.p, width);
          softmax_gradient(t, keys, from, width);
          const int64_t rows = queries - from;
          tile::product<false, true>(keys, dim, rows, t.p + from, width, t.d_o + from * dim, dim, t.dv + at,
                                     dim);
          tile::product<false, true>(keys, dim, rows, t.ds + from, width, t.q + from * dim, dim, t.dk + at,
                                     dim);
          tile::product<true, true>(rows, dim, keys, t.ds + from, width, t.k + at, dim, t.dq + from * dim,
                                    dim);
        }
        const std::atomic_ref turn(
            turns[query_tiles.parts_before(task.sequence) * op.in.heads + head * parts + part]);
        while (turn.load(std::memory_order_acquire) != task.part) std::this_thread::yield();
        add_dq(t, seq.q_begin + q0, queries, head, first, last);
        turn.store(static_cast<int32_t>(task.part + 1), std::memory_order_release);
      }

    for (int64_t j = 0; j < block; ++j) {
      T* dk = op.dk[row + j] + column;
      T* dv = op.dv[row + j] + column;
#pragma omp simd
      for (int64_t d = 0; d < op.in.head_dim; ++d) dk[d] = T(t.dk[j * dim + d]);
#pragma omp simd
      for (int64_t d = 0; d < op.in.head_dim; ++d) dv[d] = T(t.dv[j * dim + d]);
    }
  }
};

// The shared scratch of a run, before the blocks of its threads.
template <class T>
struct Shared {
  using A = acc_t<T>;
  int64_t *key_starts, *query_starts, turn_count = 0;
  int32_t* turns;
  A* dq_sum = nullptr;
  Shared(const AttentionBackward<T>& op, Scratch& scratch) {
    key_starts = scratch.take<int64_t>(op.in.sequences + 1);
    query_starts = scratch.take<int64_t>(op.in.sequences + 1);
    for (int s = 0; s < op.in.sequences; ++s)
      turn_count += tiles(op.in.cu_q[s + 1] - op.in.cu_q[s], query_tile<A>) * op.in.heads;
    turns = scratch.take<int32_t>(turn_count);
    if constexpr (!std::is_same_v<T, A>)
      dq_sum = scratch.take<A>(op.in.tokens_q * op.in.heads * op.in.head_dim);
  }
};

}  // namespace

template <class T>
int64_t workspace(const Cpu&, const AttentionBackward<T>& op) {
  Scratch scratch;
  Shared<T>(op, scratch);
  scratch.take<char>(thread_count() * Block<acc_t<T>>::bytes(op.in.head_dim));
  return scratch.bytes();
}

template <class T>
void run(const Cpu& cpu, const AttentionBackward<T>& op) {
  using A = acc_t<T>;
  attention::check(op.in);
  if (op.in.tokens_q == 0 && op.in.tokens_k == 0) return;
  Scratch scratch(cpu.ws);
  Shared<T> shared(op, scratch);
  const Tasks tasks(shared.key_starts, op.in.sequences, op.in.cu_k, key_block, op.in.kv_heads, 1);
  const Tasks query_tiles(shared.query_starts, op.in.sequences, op.in.cu_q, query_tile<A>, op.in.heads, 0);
  std::fill(shared.turns, shared.turns + shared.turn_count, 0);
  Rows<A> dq_sum{shared.dq_sum, int64_t{op.in.heads} * op.in.head_dim};
  if constexpr (std::is_same_v<T, A>) dq_sum = op.dq;
  const Backward<T> backward{op, query_tiles, shared.turns, dq_sum};
  const int64_t block_bytes = Block<A>::bytes(op.in.head_dim);
  char* blocks = scratch.take<char>(thread_count() * block_bytes);
  const auto each = [&](int thread, auto&& loop) {
    Scratch mine(Workspace{blocks + thread * block_bytes, block_bytes});
    const Block<A> t(op.in.head_dim, mine);
    loop([&](int64_t n) { backward(t, tasks[n]); });
  };
  // A task waits for lower numbers of its head alone.
  const bool in_order = tasks.count() > op.in.sequences * op.in.kv_heads;
  parallel_tasks(tasks.count(), 2 * attention::work(op.in), each, in_order);
}

MIMO_CPU_KERNEL(AttentionBackward);
template int64_t workspace<float>(const Cpu&, const AttentionBackward<float>&);
template int64_t workspace<bf16>(const Cpu&, const AttentionBackward<bf16>&);
template int64_t workspace<double>(const Cpu&, const AttentionBackward<double>&);

}  // namespace mimo
