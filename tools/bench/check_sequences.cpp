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

template <class T, class U, class Op>
const U* left(Part<U>& m, const Op& op, const Corner& s) {
  return op.trans_a ? m.in(op.a + s.row, all(op.k), s.rows, op.a_ld)
                    : m.in(op.a, range(s.row, s.row + s.rows), op.k, op.a_ld);
}
template <class T, class U, class Op>
const U* right(Part<U>& m, const Op& op, const Corner& s) {
  return op.trans_b ? m.in(op.b, range(s.col, s.col + s.cols), op.k, op.b_ld)
                    : m.in(op.b + s.col, all(op.k), s.cols, op.b_ld);
}

// Sequences of an op's `cu`, as they lie.
template <class Op>
std::vector<int32_t> lengths(const Op& op) {
  return fetch_bytes(op.cu, op.sequences + 1);
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
    return Gemm<U>{op.trans_a,
                   op.trans_b,
                   s.rows,
                   s.cols,
                   op.k,
                   op.alpha,
                   left<T>(m, op, s),
                   op.trans_a ? s.rows : op.k,
                   right<T>(m, op, s),
                   op.trans_b ? op.k : s.cols,
                   op.beta,
                   m.out("c", op.c + s.col, range(s.row, s.row + s.rows), s.cols, op.c_ld),
                   s.cols,
                   op.bias ? m.in(op.bias + s.col, s.cols) : nullptr};
  });
}

template <class T>
void sample(Check& c, const GemmAccumulate<T>& op) {
  const Corner s(op.m, op.n);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return GemmAccumulate<U>{op.trans_a,
                             op.trans_b,
                             s.rows,
                             s.cols,
                             op.k,
                             op.alpha,
                             left<T>(m, op, s),
                             op.trans_a ? s.rows : op.k,
                             right<T>(m, op, s),
                             op.trans_b ? op.k : s.cols,
                             op.beta,
                             m.acc_out("c", op.c + s.col, range(s.row, s.row + s.rows), s.cols, op.c_ld),
                             s.cols};
  });
}

// The last key-value head and its queries, of 32 rows.
template <class T>
void sample(Check& c, const Attention<T>& op) {
  const Block q(fetch_bytes(op.cu_q, op.sequences + 1));
  const std::vector<int32_t> cu_k = fetch_bytes(op.cu_k, op.sequences + 1);
  const int64_t keys = cu_k[q.sequence + 1] - cu_k[q.sequence], at = q.begin + q.first;
  const int heads = op.heads / op.kv_heads;
  const int64_t d = op.head_dim, q_col = (op.heads - heads) * d, kv_col = (op.kv_heads - 1) * d;
  const Picks rows = range(at, at + q.rows), of_keys = range(cu_k[q.sequence], cu_k[q.sequence + 1]);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Attention<U>{
        1,
        m.data(std::vector<int32_t>{0, static_cast<int32_t>(q.rows)}),
        m.data(std::vector<int32_t>{0, static_cast<int32_t>(keys)}),
        m.data(std::vector<int64_t>{q.first}),
        m.data(std::vector<int64_t>{0}),
        q.rows,
        keys,
        heads,
        1,
        op.head_dim,
        op.causal,
        op.scale,
        m.in(op.q + q_col, rows, heads * d, op.q_ld),
        heads * d,
        m.in(op.k + kv_col, of_keys, d, op.k_ld),
        d,
        m.in(op.v + kv_col, of_keys, d, op.v_ld),
        d,
        m.out("o", op.o + q_col, rows, heads * d, op.o_ld),
        heads * d,
        m.acc_out("lse", op.lse + at, range(op.heads - heads, op.heads), q.rows, op.tokens_q)};
  });
}

// dq of 32 queries over all keys; then dk and dv of 32 keys over all queries, whose probabilities follow from
// the whole rows' lse and delta.
template <class T>
void sample(Check& c, const AttentionBackward<T>& op) {
  const std::vector<int32_t> cu_q = fetch_bytes(op.cu_q, op.sequences + 1),
                             cu_k = fetch_bytes(op.cu_k, op.sequences + 1);
  const int heads = op.heads / op.kv_heads;
  const int64_t d = op.head_dim, q_col = (op.heads - heads) * d, kv_col = (op.kv_heads - 1) * d;
  const auto part = [&](int64_t q_at, int64_t q_first, int64_t q_rows, int64_t k_at, int64_t k_first,
                        int64_t k_rows, bool queries) {
    const Picks q = range(q_at, q_at + q_rows), k = range(k_at, k_at + k_rows);
    c.expect<T>(
        [&]<class U>(Part<U>& m) {
          return AttentionBackward<U>{
              1,
              m.data(std::vector<int32_t>{0, static_cast<int32_t>(q_rows)}),
              m.data(std::vector<int32_t>{0, static_cast<int32_t>(k_rows)}),
              m.data(std::vector<int64_t>{q_first}),
              m.data(std::vector<int64_t>{k_first}),
              q_rows,
              k_rows,
              heads,
              1,
              op.head_dim,
              op.causal,
              op.scale,
              m.in(op.q + q_col, q, heads * d, op.q_ld),
              heads * d,
              m.in(op.k + kv_col, k, d, op.k_ld),
              d,
              m.in(op.v + kv_col, k, d, op.v_ld),
              d,
              m.in(op.o + q_col, q, heads * d, op.o_ld),
              heads * d,
              m.acc(op.lse + q_at, range(op.heads - heads, op.heads), q_rows, op.tokens_q),
              op.delta ? m.acc(op.delta + q_at, range(op.heads - heads, op.heads), q_rows, op.tokens_q)
                       : nullptr,
              m.in(op.d_o + q_col, q, heads * d, op.d_o_ld),
              heads * d,
              queries ? m.out("dq", op.dq + q_col, q, heads * d, op.dq_ld) : m.unused(q_rows * heads * d),
              heads * d,
              queries ? m.unused(k_rows * d) : m.out("dk", op.dk + kv_col, k, d, op.dk_ld),
              d,
              queries ? m.unused(k_rows * d) : m.out("dv", op.dv + kv_col, k, d, op.dv_ld),
              d};
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
    return AttentionMerge<U>{count(rows),
                             op.heads,
                             op.head_dim,
                             m.out("o", op.o_a, rows, n, op.o_a_ld),
                             n,
                             m.acc_out("lse", op.lse_a + at, heads, count(rows), op.tokens),
                             m.in(op.o_b, rows, n, op.o_b_ld),
                             n,
                             m.acc(op.lse_b + at, heads, count(rows), op.tokens)};
  });
}

// The last head, alone in its group, over all tokens.
template <class T>
void sample(Check& c, const Ssd<T>& op) {
  const Picks t = all(op.tokens);
  const int64_t p = op.head_dim, n = op.state, h = op.heads - 1, x = h * p, g = (op.groups - 1) * n;
  c.expect<T>(
      [&]<class U>(Part<U>& m) {
        return Ssd<U>{op.sequences,
                      m.data(lengths(op)),
                      op.tokens,
                      1,
                      op.head_dim,
                      1,
                      op.state,
                      op.chunk,
                      m.in(op.x + x, t, p, op.x_ld),
                      p,
                      m.in(op.b + g, t, n, op.b_ld),
                      n,
                      m.in(op.c + g, t, n, op.c_ld),
                      n,
                      m.in(op.dt + h, t, 1, op.dt_ld),
                      1,
                      m.acc(op.dt_bias, {h}),
                      m.acc(op.a_log, {h}),
                      m.acc(op.d, {h}),
                      op.dt_min,
                      op.dt_max,
                      nullptr,
                      m.out("y", op.y + x, t, p, op.y_ld),
                      p,
                      nullptr};
      },
      Tolerance{.operands_rounded = true});
}

// What belongs to a head, of the last one; then, of a last sequence that is not too long for a CPU, what the
// heads of a group add up.
template <class T>
void sample(Check& c, const SsdBackward<T>& op) {
  const std::vector<int32_t> cu = lengths(op);
  const auto part = [&](int sequence, int64_t begin, int64_t end, int heads, bool head) {
    const Picks t = range(begin, end);
    const int64_t p = op.head_dim, n = op.state, h = op.heads - heads, x = h * p, g = (op.groups - 1) * n,
                  w = heads * p, rows = end - begin;
    std::vector<int32_t> of(cu.begin() + sequence, cu.end());
    for (int32_t& at : of) at -= static_cast<int32_t>(begin);
    const Picks hs = range(h, op.heads);
    c.expect<T>(
        [&]<class U>(Part<U>& m) {
          return SsdBackward<U>{static_cast<int>(of.size()) - 1,
                                m.data(of),
                                rows,
                                heads,
                                op.head_dim,
                                1,
                                op.state,
                                op.chunk,
                                m.in(op.x + x, t, w, op.x_ld),
                                w,
                                m.in(op.b + g, t, n, op.b_ld),
                                n,
                                m.in(op.c + g, t, n, op.c_ld),
                                n,
                                m.in(op.dt + h, t, heads, op.dt_ld),
                                heads,
                                m.acc(op.dt_bias, hs),
                                m.acc(op.a_log, hs),
                                m.acc(op.d, hs),
                                op.dt_min,
                                op.dt_max,
                                nullptr,
                                m.in(op.dy + x, t, w, op.dy_ld),
                                w,
                                nullptr,
                                m.out("dx", op.dx + x, t, w, op.dx_ld),
                                w,
                                head ? m.unused(rows * n) : m.out("db", op.db + g, t, n, op.db_ld),
                                n,
                                head ? m.unused(rows * n) : m.out("dc", op.dc + g, t, n, op.dc_ld),
                                n,
                                m.out("ddt", op.ddt + h, t, heads, op.ddt_ld),
                                heads,
                                head ? m.acc_out("ddt_bias", op.ddt_bias, hs) : m.unused_acc(heads),
                                head ? m.acc_out("da_log", op.da_log, hs) : m.unused_acc(heads),
                                head ? m.acc_out("dd", op.dd, hs) : m.unused_acc(heads),
                                nullptr};
        },
        Tolerance{.operands_rounded = true});
  };
  part(0, 0, op.tokens, 1, true);
  const int last = op.sequences - 1;
  if (cu[last + 1] - cu[last] <= 8192) part(last, cu[last], cu[last + 1], op.heads / op.groups, false);
}

namespace {
constexpr int kScanned = 8;  // channels
}

template <class T>
void sample(Check& c, const SelectiveScan<T>& op) {
  const Picks t = all(op.tokens);
  const int n = std::min(kScanned, op.channels);
  const int64_t at = op.channels - n, state = op.state;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return SelectiveScan<U>{op.sequences,
                            m.data(lengths(op)),
                            op.tokens,
                            n,
                            op.state,
                            m.in(op.u + at, t, n, op.u_ld),
                            n,
                            m.in(op.delta + at, t, n, op.delta_ld),
                            n,
                            m.in(op.b, t, state, op.b_ld),
                            state,
                            m.in(op.c, t, state, op.c_ld),
                            state,
                            op.z ? m.in(op.z + at, t, n, op.z_ld) : nullptr,
                            n,
                            m.acc(op.delta_bias + at, all(n)),
                            m.acc(op.a_log + at * state, all(n), state, state),
                            m.acc(op.d + at, all(n)),
                            nullptr,
                            m.out("y", op.y + at, t, n, op.y_ld),
                            n,
                            nullptr};
  });
}

// db and dc add up all channels: they are looked at where a CPU can compute that.
template <class T>
void sample(Check& c, const SelectiveScanBackward<T>& op) {
  const Picks t = all(op.tokens);
  const bool whole = op.tokens * op.channels <= int64_t{1} << 23;
  const int n = whole ? op.channels : std::min(kScanned, op.channels);
  const int64_t at = op.channels - n, state = op.state;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return SelectiveScanBackward<U>{
        op.sequences,
        m.data(lengths(op)),
        op.tokens,
        n,
        op.state,
        m.in(op.u + at, t, n, op.u_ld),
        n,
        m.in(op.delta + at, t, n, op.delta_ld),
        n,
        m.in(op.b, t, state, op.b_ld),
        state,
        m.in(op.c, t, state, op.c_ld),
        state,
        op.z ? m.in(op.z + at, t, n, op.z_ld) : nullptr,
        n,
        m.acc(op.delta_bias + at, all(n)),
        m.acc(op.a_log + at * state, all(n), state, state),
        m.acc(op.d + at, all(n)),
        nullptr,
        m.in(op.dy + at, t, n, op.dy_ld),
        n,
        nullptr,
        m.out("du", op.du + at, t, n, op.du_ld),
        n,
        m.out("ddelta", op.ddelta + at, t, n, op.ddelta_ld),
        n,
        whole ? m.out("db", op.db, t, state, op.db_ld) : m.unused(op.tokens * state),
        state,
        whole ? m.out("dc", op.dc, t, state, op.dc_ld) : m.unused(op.tokens * state),
        state,
        op.dz ? m.out("dz", op.dz + at, t, n, op.dz_ld) : nullptr,
        n,
        m.acc_out("ddelta_bias", op.ddelta_bias + at, all(n)),
        m.acc_out("da_log", op.da_log + at * state, all(n), state, state),
        m.acc_out("dd", op.dd + at, all(n)),
        nullptr};
  });
}

template <class T>
void sample(Check& c, const CausalConv<T>& op) {
  const Picks t = all(op.tokens);
  const int n = std::min(64, op.channels), w = op.width;
  const int64_t at = op.channels - n;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return CausalConv<U>{op.sequences,
                         m.data(lengths(op)),
                         op.tokens,
                         n,
                         w,
                         m.in(op.x + at, t, n, op.x_ld),
                         n,
                         m.in(op.weight + at * w, n * w),
                         op.bias ? m.in(op.bias + at, n) : nullptr,
                         nullptr,
                         m.out("y", op.y + at, t, n, op.y_ld),
                         n,
                         nullptr};
  });
}

template <class T>
void sample(Check& c, const CausalConvBackward<T>& op) {
  const Picks t = all(op.tokens);
  const int n = std::min(64, op.channels), w = op.width;
  const int64_t at = op.channels - n;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return CausalConvBackward<U>{op.sequences,
                                 m.data(lengths(op)),
                                 op.tokens,
                                 n,
                                 w,
                                 m.in(op.x + at, t, n, op.x_ld),
                                 n,
                                 m.in(op.weight + at * w, n * w),
                                 op.bias ? m.in(op.bias + at, n) : nullptr,
                                 nullptr,
                                 m.in(op.dy + at, t, n, op.dy_ld),
                                 n,
                                 nullptr,
                                 m.out("dx", op.dx + at, t, n, op.dx_ld),
                                 n,
                                 m.acc_out("dweight", op.dweight + at * w, all(n), w, w),
                                 m.acc_out("dbias", op.dbias + at, all(n)),
                                 nullptr};
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
