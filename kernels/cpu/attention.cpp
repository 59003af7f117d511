// FlashAttention on the CPU. A task is one tile of queries of one head; it walks over the tiles of visible
// keys. Scores are kept transposed, S^T [keys, queries], so that a vector lane is a query: maximum, sum and
// mask need no reduction across lanes, and K and V are read row by row as they lie. Q is transposed once a
// task. A task's sums never depend on the thread that takes it: results are equal for any number of threads.
#include "kernels/attention.h"

#include <limits>

#include "kernels/cpu/attention_tiles.h"

namespace mimo {
namespace {

using attention::key_tile;
using attention::query_tile;
using attention::Sequence;
using attention::Tasks;

template <class A>
struct Tile {
  A *q, *q_t, *k, *v, *s, *o, *max, *sum;
  Tile(int64_t head_dim, Scratch& scratch) {
    const int64_t dim = tile::padded<A>(head_dim);
    q = scratch.take<A>(query_tile<A> * dim);
    q_t = scratch.take<A>(query_tile<A> * dim);
    k = scratch.take<A>(key_tile * dim);
    v = scratch.take<A>(key_tile * dim);
    s = scratch.take<A>(key_tile * query_tile<A>);
    o = scratch.take<A>(query_tile<A> * dim);
    max = scratch.take<A>(query_tile<A>);
    sum = scratch.take<A>(query_tile<A>);
  }
  static int64_t bytes(int64_t head_dim) {
    Scratch scratch;
    Tile(head_dim, scratch);
    return scratch.bytes();
  }
};

// One step of the online softmax on S^T [keys, width], queries from `from` on: S becomes exp(S - max) for the
// new maximum, O's rows and the sums are scaled down to it. Lanes that have seen no key subtract 0 from -inf.
template <class A>
void softmax_step(const Tile<A>& t, int64_t keys, int64_t from, int64_t width, int64_t dim) {
  constexpr A inf = std::numeric_limits<A>::infinity();
  for (int64_t i = from; i < width; i += lanes<A>) {
    const Vec<A> old = load(t.max + i);
    Vec<A> max = old;
    for (int64_t j = 0; j < keys; ++j) {
      const Vec<A> s = load(t.s + j * width + i);
      max = s > max ? s : max;
    }
    const Vec<A> base = max == -inf ? Vec<A>{} : max;
    Vec<A> sum{};
    for (int64_t j = 0; j < keys; ++j) {
      const Vec<A> p = fast_exp(load(t.s + j * width + i) - base);
      store(t.s + j * width + i, p);
      sum += p;
    }
    const Vec<A> shrink = fast_exp(old - base);
    store(t.max + i, max);
    store(t.sum + i, load(t.sum + i) * shrink + sum);
    for (int r = 0; r < lanes<A>; ++r) {
      if (shrink[r] == 1) continue;
      A* row = t.o + (i + r) * dim;
      for (int64_t d = 0; d < dim; d += lanes<A>) store(row + d, load(row + d) * shrink[r]);
    }
  }
}

template <class T>
void forward(const Attention<T>& op, const Sequence& seq, int64_t head, int64_t q0, const Tile<acc_t<T>>& t) {
  using A = acc_t<T>;
  constexpr A inf = std::numeric_limits<A>::infinity();
  const int64_t queries = std::min(query_tile<A>, seq.q_len - q0), width = tile::padded<A>(queries);
  const int64_t dim = tile::padded<A>(op.in.head_dim), row0 = seq.q_begin + q0;
  const int64_t kv_column = head / (op.in.heads / op.in.kv_heads) * op.in.head_dim;
  tile::load_rows<true>(queries, op.in.head_dim, op.in.q[row0] + head * op.in.head_dim, op.in.q.ld, t.q,
                        op.in.scale);
  tile::transpose(width, dim, t.q, dim, t.q_t, width);
  std::fill(t.o, t.o + width * dim, A(0));
  std::fill(t.max, t.max + width, -inf);
  std::fill(t.sum, t.sum + width, A(0));

  const int64_t end = seq.visible(q0 + queries - 1);
  for (int64_t k0 = 0; k0 < end; k0 += key_tile) {
    const int64_t keys = std::min(key_tile, end - k0);
    const T* k = op.in.k[seq.k_begin + k0] + kv_column;
    const T* v = op.in.v[seq.k_begin + k0] + kv_column;
    tile::load_rows<false>(keys, op.in.head_dim, k, op.in.k.ld, t.k);
    tile::load_rows<false>(keys, op.in.head_dim, v, op.in.v.ld, t.v);
    // Queries before the first that sees this tile's first key are left out, in whole vectors.
    const int64_t from = seq.first_query(k0, q0, queries) / lanes<A> * lanes<A>;
    tile::product<false, false>(keys, width - from, op.in.head_dim, t.k, dim, t.q_t + from, width, t.s + from,
                                width);
    seq.mask(k0, keys, q0, queries, from, t.s, width);
    softmax_step(t, keys, from, width, dim);
    tile::product<true, true>(queries - from, dim, keys, t.s + from, width, t.v, dim, t.o + from * dim, dim);
  }

  for (int64_t i = 0; i < queries; ++i) {
    const A sum = t.sum[i], norm = sum == 0 ? 0 : 1 / sum;
    T* o = op.o[row0 + i] + head * op.in.head_dim;
#pragma omp simd
    for (int64_t d = 0; d < op.in.head_dim; ++d) o[d] = T(t.o[i * dim + d] * norm);
    op.lse[head * op.in.tokens_q + row0 + i] = sum == 0 ? -inf : t.max[i] + std::log(sum);
  }
}

}  // namespace

template <class T>
int64_t workspace(const Cpu&, const Attention<T>& op) {
  Scratch scratch;
  scratch.take<int64_t>(op.in.sequences + 1);
  scratch.take<char>(thread_count() * Tile<acc_t<T>>::bytes(op.in.head_dim));
  return scratch.bytes();
}

template <class T>
void run(const Cpu& cpu, const Attention<T>& op) {
  using A = acc_t<T>;
  attention::check(op.in);
  if (op.in.tokens_q == 0) return;
  Scratch scratch(cpu.ws);
  const Tasks tasks(scratch.take<int64_t>(op.in.sequences + 1), op.in.sequences, op.in.cu_q, query_tile<A>,
                    op.in.heads, 0);
  const int64_t tile_bytes = Tile<A>::bytes(op.in.head_dim);
  char* tiles = scratch.take<char>(thread_count() * tile_bytes);
  parallel_tasks(tasks.count(), attention::work(op.in), [&](int thread, auto&& loop) {
    Scratch mine(Workspace{tiles + thread * tile_bytes, tile_bytes});
    const Tile<A> t(op.in.head_dim, mine);
    loop([&](int64_t n) {
      const Tasks::Task task = tasks[n];
      // The longest rows of a causal sequence first.
      forward(op, Sequence(op.in, task.sequence), task.head, (task.parts - 1 - task.part) * query_tile<A>, t);
    });
  });
}

template <class T>
void run(const Cpu&, const AttentionMerge<T>& op) {
  using A = acc_t<T>;
  constexpr A inf = std::numeric_limits<A>::infinity();
  parallel_for(op.tokens, 3 * op.tokens * op.heads * op.head_dim * int64_t{sizeof(T)}, [&](int64_t i) {
    for (int64_t h = 0; h < op.heads; ++h) {
      A& lse = op.lse_a[h * op.tokens + i];
      const A other = op.lse_b[h * op.tokens + i], max = std::max(lse, other), base = max == -inf ? 0 : max;
      const A a = fast_exp(lse - base), b = fast_exp(other - base), norm = a + b == 0 ? 0 : 1 / (a + b);
      T* x = op.o_a[i] + h * op.head_dim;
      const T* y = op.o_b[i] + h * op.head_dim;
#pragma omp simd
      for (int64_t d = 0; d < op.head_dim; ++d)
        x[d] = T(a * norm * static_cast<A>(x[d]) + b * norm * static_cast<A>(y[d]));
      lse = max == -inf ? -inf : max + std::log(a + b);
    }
  });
}

MIMO_CPU_KERNEL(Attention);
MIMO_CPU_KERNEL(AttentionMerge);
template int64_t workspace<float>(const Cpu&, const Attention<float>&);
template int64_t workspace<bf16>(const Cpu&, const Attention<bf16>&);
template int64_t workspace<double>(const Cpu&, const Attention<double>&);

}  // namespace mimo
