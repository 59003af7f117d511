// Samples of products and of what mixes rows: attention at some queries or keys, scans and convolutions at
// some heads or channels of whole sequences.
#include <algorithm>

#include "tools/bench/check.h"

namespace mimo::bench {
namespace {

int64_t count(const Picks& p) { return static_cast<int64_t>(p.size()); }

Picks range(int64_t begin, int64_t end) {
  Picks p;
  for (int64_t i = begin; i < end; ++i) p.push_back(i);
  return p;
}

// 16 rows and 64 columns of a product, in its last corner.
struct Corner {
  int64_t row, col, rows, cols;
  Corner(int64_t m, int64_t n)
      : row(std::max<int64_t>(0, m - 16)), col(std::max<int64_t>(0, n - 64)), rows(m - row), cols(n - col) {}
};

template <class U, class Op>
Rows<const U> left(Part<U>& m, const Op& op, const Corner& s) {
  return op.trans_a ? m.in(op.a.from_column(s.row), all(op.k), s.rows)
                    : m.in(op.a, range(s.row, s.row + s.rows), op.k);
}
template <class U, class Op>
Rows<const U> right(Part<U>& m, const Op& op, const Corner& s) {
  return op.trans_b ? m.in(op.b, range(s.col, s.col + s.cols), op.k)
                    : m.in(op.b.from_column(s.col), all(op.k), s.cols);
}

// Sequences of an op's `cu`, as they lie.
template <class Inputs>
std::vector<int32_t> lengths(const Inputs& in) {
  return fetch_bytes(in.cu, in.sequences + 1);
}

// Where a block of up to 32 rows is looked at: at the end of the last sequence.
struct Block {
  int sequence;
  int64_t begin, first, rows;  // of the sequence; of the block, within it
  explicit Block(const std::vector<int32_t>& cu)
      : sequence(static_cast<int>(cu.size()) - 2), begin(cu[sequence]) {
    const int64_t length = cu[sequence + 1] - begin;
    first = std::max<int64_t>(0, length - 32), rows = length - first;
  }
};

}  // namespace

template <class T>
void sample(Check& c, const Gemm<T>& op) {
  const Corner s(op.m, op.n);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Gemm<U>{.trans_a = op.trans_a,
                   .trans_b = op.trans_b,
                   .m = s.rows,
                   .n = s.cols,
                   .k = op.k,
                   .alpha = op.alpha,
                   .a = left(m, op, s),
                   .b = right(m, op, s),
                   .beta = op.beta,
                   .c = m.out("c", op.c.from_column(s.col), range(s.row, s.row + s.rows), s.cols),
                   .bias = op.bias ? m.in(op.bias + s.col, s.cols) : nullptr};
  });
}

template <class T>
void sample(Check& c, const GemmAccumulate<T>& op) {
  const Corner s(op.m, op.n);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return GemmAccumulate<U>{
        .trans_a = op.trans_a,
        .trans_b = op.trans_b,
        .m = s.rows,
        .n = s.cols,
        .k = op.k,
        .alpha = op.alpha,
        .a = left(m, op, s),
        .b = right(m, op, s),
        .beta = op.beta,
        .c = {m.acc_out("c", op.c.data + s.col, range(s.row, s.row + s.rows), s.cols, op.c.ld), s.cols}};
  });
}

// The last key-value head and its queries, of some rows.
template <class U, class T>
static AttentionInputs<U> inputs(Part<U>& m, const AttentionInputs<T>& in, const Picks& q, int64_t q_first,
                                 const Picks& k, int64_t k_first) {
  const int heads = in.heads / in.kv_heads;
  const int64_t d = in.head_dim, q_col = (in.heads - heads) * d, kv_col = (in.kv_heads - 1) * d;
  return {.sequences = 1,
          .cu_q = m.data(std::vector<int32_t>{0, static_cast<int32_t>(count(q))}),
          .cu_k = m.data(std::vector<int32_t>{0, static_cast<int32_t>(count(k))}),
          .first_q = m.data(std::vector<int64_t>{q_first}),
          .first_k = m.data(std::vector<int64_t>{k_first}),
          .tokens_q = count(q),
          .tokens_k = count(k),
          .heads = heads,
          .kv_heads = 1,
          .head_dim = in.head_dim,
          .causal = in.causal,
          .scale = in.scale,
          .q = m.in(in.q.from_column(q_col), q, heads * d),
          .k = m.in(in.k.from_column(kv_col), k, d),
          .v = m.in(in.v.from_column(kv_col), k, d)};
}

// The last key-value head and its queries, of 32 rows.
template <class T>
void sample(Check& c, const Attention<T>& op) {
  const Block q(fetch_bytes(op.in.cu_q, op.in.sequences + 1));
  const std::vector<int32_t> cu_k = fetch_bytes(op.in.cu_k, op.in.sequences + 1);
  const int64_t at = q.begin + q.first;
  const int heads = op.in.heads / op.in.kv_heads;
  const int64_t d = op.in.head_dim, q_col = (op.in.heads - heads) * d;
  const Picks rows = range(at, at + q.rows), of_keys = range(cu_k[q.sequence], cu_k[q.sequence + 1]);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Attention<U>{.in = inputs(m, op.in, rows, q.first, of_keys, 0),
                        .o = m.out("o", op.o.from_column(q_col), rows, heads * d),
                        .lse = m.acc_out("lse", op.lse + at, range(op.in.heads - heads, op.in.heads), q.rows,
                                         op.in.tokens_q)};
  });
}

// dq of 32 queries over all keys; then dk and dv of 32 keys over all queries, whose probabilities follow from
// the whole rows' lse and delta.
template <class T>
void sample(Check& c, const AttentionBackward<T>& op) {
  const std::vector<int32_t> cu_q = fetch_bytes(op.in.cu_q, op.in.sequences + 1),
                             cu_k = fetch_bytes(op.in.cu_k, op.in.sequences + 1);
  const int heads = op.in.heads / op.in.kv_heads;
  const int64_t d = op.in.head_dim, q_col = (op.in.heads - heads) * d, kv_col = (op.in.kv_heads - 1) * d;
  const auto part = [&](int64_t q_at, int64_t q_first, int64_t q_rows, int64_t k_at, int64_t k_first,
                        int64_t k_rows, bool queries) {
    const Picks q = range(q_at, q_at + q_rows), k = range(k_at, k_at + k_rows);
    c.expect<T>(
        [&]<class U>(Part<U>& m) {
          return AttentionBackward<U>{
              .in = inputs(m, op.in, q, q_first, k, k_first),
              .o = m.in(op.o.from_column(q_col), q, heads * d),
              .lse = m.acc(op.lse + q_at, range(op.in.heads - heads, op.in.heads), q_rows, op.in.tokens_q),
              .delta = op.delta ? m.acc(op.delta + q_at, range(op.in.heads - heads, op.in.heads), q_rows,
                                        op.in.tokens_q)
                                : nullptr,
              .d_o = m.in(op.d_o.from_column(q_col), q, heads * d),
              .dq =
                  queries ? m.out("dq", op.dq.from_column(q_col), q, heads * d) : m.unused(q_rows, heads * d),
              .dk = queries ? m.unused(k_rows, d) : m.out("dk", op.dk.from_column(kv_col), k, d),
              .dv = queries ? m.unused(k_rows, d) : m.out("dv", op.dv.from_column(kv_col), k, d)};
        },
        Tolerance{.operands_rounded = true});
  };
  const Block q(cu_q), k(cu_k);
  const int s = q.sequence;
  part(q.begin + q.first, q.first, q.rows, cu_k[s], 0, cu_k[s + 1] - cu_k[s], true);
  part(cu_q[s], 0, cu_q[s + 1] - cu_q[s], k.begin + k.first, k.first, k.rows, false);
}

template <class T>
void sample(Check& c, const AttentionMerge<T>& op) {
  const int64_t at = std::max<int64_t>(0, op.tokens - 16), n = int64_t{op.heads} * op.head_dim;
  const Picks rows = range(at, op.tokens), heads = all(op.heads);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return AttentionMerge<U>{.tokens = count(rows),
                             .heads = op.heads,
                             .head_dim = op.head_dim,
                             .o_a = m.out("o", op.o_a, rows, n),
                             .lse_a = m.acc_out("lse", op.lse_a + at, heads, count(rows), op.tokens),
                             .o_b = m.in(op.o_b, rows, n),
                             .lse_b = m.acc(op.lse_b + at, heads, count(rows), op.tokens)};
  });
}

// The last heads, of one group, over some rows.
template <class U, class T>
static SsdInputs<U> inputs(Part<U>& m, const SsdInputs<T>& in, const std::vector<int32_t>& cu, const Picks& t,
                           int heads) {
  const int64_t p = in.head_dim, n = in.state, h = in.heads - heads, g = (in.groups - 1) * n;
  const Picks hs = range(h, in.heads);
  return {.sequences = static_cast<int>(cu.size()) - 1,
          .cu = m.data(cu),
          .tokens = count(t),
          .heads = heads,
          .head_dim = in.head_dim,
          .groups = 1,
          .state = in.state,
          .chunk = in.chunk,
          .x = m.in(in.x.from_column(h * p), t, heads * p),
          .b = m.in(in.b.from_column(g), t, n),
          .c = m.in(in.c.from_column(g), t, n),
          .dt = m.in(in.dt.from_column(h), t, heads),
          .dt_bias = m.acc(in.dt_bias, hs),
          .a_log = m.acc(in.a_log, hs),
          .d = m.acc(in.d, hs),
          .dt_min = in.dt_min,
          .dt_max = in.dt_max};
}

// The last head, alone in its group, over all tokens.
template <class T>
void sample(Check& c, const Ssd<T>& op) {
  const Picks t = all(op.in.tokens);
  const int64_t p = op.in.head_dim, x = (op.in.heads - 1) * p;
  c.expect<T>(
      [&]<class U>(Part<U>& m) {
        return Ssd<U>{.in = inputs(m, op.in, lengths(op.in), t, 1),
                      .y = m.out("y", op.y.from_column(x), t, p)};
      },
      Tolerance{.operands_rounded = true});
}

// What belongs to a head, of the last one; then, of a last sequence that is not too long for a CPU, what the
// heads of a group add up.
template <class T>
void sample(Check& c, const SsdBackward<T>& op) {
  const std::vector<int32_t> cu = lengths(op.in);
  const auto part = [&](int sequence, int64_t begin, int64_t end, int heads, bool head) {
    const Picks t = range(begin, end);
    const int64_t p = op.in.head_dim, n = op.in.state, h = op.in.heads - heads, x = h * p,
                  g = (op.in.groups - 1) * n, w = heads * p, rows = end - begin;
    std::vector<int32_t> of(cu.begin() + sequence, cu.end());
    for (int32_t& at : of) at -= static_cast<int32_t>(begin);
    const Picks hs = range(h, op.in.heads);
    c.expect<T>(
        [&]<class U>(Part<U>& m) {
          return SsdBackward<U>{
              .in = inputs(m, op.in, of, t, heads),
              .dy = m.in(op.dy.from_column(x), t, w),
              .dx = m.out("dx", op.dx.from_column(x), t, w),
              .db = head ? m.unused(rows, n) : m.out("db", op.db.from_column(g), t, n),
              .dc = head ? m.unused(rows, n) : m.out("dc", op.dc.from_column(g), t, n),
              .ddt = m.out("ddt", op.ddt.from_column(h), t, heads),
              .ddt_bias = head ? m.acc_out("ddt_bias", op.ddt_bias, hs) : m.unused_acc(heads),
              .da_log = head ? m.acc_out("da_log", op.da_log, hs) : m.unused_acc(heads),
              .dd = head ? m.acc_out("dd", op.dd, hs) : m.unused_acc(heads)};
        },
        Tolerance{.operands_rounded = true});
  };
  part(0, 0, op.in.tokens, 1, true);
  const int last = op.in.sequences - 1;
  if (cu[last + 1] - cu[last] <= 8192) part(last, cu[last], cu[last + 1], op.in.heads / op.in.groups, false);
}

namespace {
constexpr int kScanned = 8;  // channels
}

template <class U, class T>
static SelectiveScanInputs<U> inputs(Part<U>& m, const SelectiveScanInputs<T>& in, const Picks& t, int64_t at,
                                     int n) {
  const int64_t state = in.state;
  return {.sequences = in.sequences,
          .cu = m.data(lengths(in)),
          .tokens = in.tokens,
          .channels = n,
          .state = in.state,
          .u = m.in(in.u.from_column(at), t, n),
          .delta = m.in(in.delta.from_column(at), t, n),
          .b = m.in(in.b, t, state),
          .c = m.in(in.c, t, state),
          .z = in.z ? m.in(in.z.from_column(at), t, n) : Rows<const U>{},
          .delta_bias = m.acc(in.delta_bias + at, all(n)),
          .a_log = m.acc(in.a_log + at * state, all(n), state, state),
          .d = m.acc(in.d + at, all(n))};
}

template <class T>
void sample(Check& c, const SelectiveScan<T>& op) {
  const Picks t = all(op.in.tokens);
  const int n = std::min(kScanned, op.in.channels);
  const int64_t at = op.in.channels - n;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return SelectiveScan<U>{.in = inputs(m, op.in, t, at, n), .y = m.out("y", op.y.from_column(at), t, n)};
  });
}

// db and dc add up all channels: they are looked at where a CPU can compute that.
template <class T>
void sample(Check& c, const SelectiveScanBackward<T>& op) {
  const Picks t = all(op.in.tokens);
  const bool whole = op.in.tokens * op.in.channels <= int64_t{1} << 23;
  const int n = whole ? op.in.channels : std::min(kScanned, op.in.channels);
  const int64_t at = op.in.channels - n, state = op.in.state;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return SelectiveScanBackward<U>{
        .in = inputs(m, op.in, t, at, n),
        .dy = m.in(op.dy.from_column(at), t, n),
        .du = m.out("du", op.du.from_column(at), t, n),
        .ddelta = m.out("ddelta", op.ddelta.from_column(at), t, n),
        .db = whole ? m.out("db", op.db, t, state) : m.unused(op.in.tokens, state),
        .dc = whole ? m.out("dc", op.dc, t, state) : m.unused(op.in.tokens, state),
        .dz = op.dz ? m.out("dz", op.dz.from_column(at), t, n) : Rows<U>{},
        .ddelta_bias = m.acc_out("ddelta_bias", op.ddelta_bias + at, all(n)),
        .da_log = m.acc_out("da_log", op.da_log + at * state, all(n), state, state),
        .dd = m.acc_out("dd", op.dd + at, all(n))};
  });
}

template <class U, class T>
static CausalConvInputs<U> inputs(Part<U>& m, const CausalConvInputs<T>& in, const Picks& t, int64_t at,
                                  int n) {
  const int w = in.width;
  return {.sequences = in.sequences,
          .cu = m.data(lengths(in)),
          .tokens = in.tokens,
          .channels = n,
          .width = w,
          .x = m.in(in.x.from_column(at), t, n),
          .weight = m.in(in.weight + at * w, n * w),
          .bias = in.bias ? m.in(in.bias + at, n) : nullptr};
}

template <class T>
void sample(Check& c, const CausalConv<T>& op) {
  const Picks t = all(op.in.tokens);
  const int n = std::min(64, op.in.channels);
  const int64_t at = op.in.channels - n;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return CausalConv<U>{.in = inputs(m, op.in, t, at, n), .y = m.out("y", op.y.from_column(at), t, n)};
  });
}

template <class T>
void sample(Check& c, const CausalConvBackward<T>& op) {
  const Picks t = all(op.in.tokens);
  const int n = std::min(64, op.in.channels), w = op.in.width;
  const int64_t at = op.in.channels - n;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return CausalConvBackward<U>{.in = inputs(m, op.in, t, at, n),
                                 .dy = m.in(op.dy.from_column(at), t, n),
                                 .dx = m.out("dx", op.dx.from_column(at), t, n),
                                 .dweight = m.acc_out("dweight", op.dweight + at * w, all(n), w, w),
                                 .dbias = m.acc_out("dbias", op.dbias + at, all(n))};
  });
}

#define SAMPLE(Op)                                \
  template void sample(Check&, const Op<float>&); \
  template void sample(Check&, const Op<bf16>&)
SAMPLE(Gemm);
SAMPLE(GemmAccumulate);
SAMPLE(Attention);
SAMPLE(AttentionBackward);
SAMPLE(AttentionMerge);
SAMPLE(Ssd);
SAMPLE(SsdBackward);
SAMPLE(SelectiveScan);
SAMPLE(SelectiveScanBackward);
SAMPLE(CausalConv);
SAMPLE(CausalConvBackward);

}  // namespace mimo::bench
