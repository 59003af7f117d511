#include "kernels/attention.h"

#include <numeric>
#include <ostream>
#include <tuple>
#include <utility>

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Problem {
  std::vector<int32_t> q_len, k_len;
  int heads, kv_heads, head_dim;
  bool causal;
  std::vector<int64_t> first_q{}, first_k{};
  int64_t pad = 0;  // of rows: odd ones are not aligned
  bool delta = false;
};

std::ostream& operator<<(std::ostream& out, const Problem& s) {
  return out << s.q_len.size() << " sequences, heads " << s.heads << "/" << s.kv_heads << " of " << s.head_dim
             << (s.causal ? ", causal" : "") << ", pad " << s.pad;
}

std::vector<int32_t> cumulative(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> cu(lengths.size() + 1, 0);
  std::partial_sum(lengths.begin(), lengths.end(), cu.begin() + 1);
  return cu;
}

template <class T>
Attention<T> forward(Case<T>& c, const Problem& s) {
  const auto cu_q = cumulative(s.q_len), cu_k = cumulative(s.k_len);
  const int64_t q_cols = s.heads * s.head_dim, k_cols = s.kv_heads * s.head_dim;
  Attention<T> op{};
  op.sequences = static_cast<int>(s.q_len.size());
  op.cu_q = c.ints(cu_q), op.cu_k = c.ints(cu_k);
  if (!s.first_q.empty()) op.first_q = c.data(s.first_q);
  if (!s.first_k.empty()) op.first_k = c.data(s.first_k);
  op.tokens_q = cu_q.back(), op.tokens_k = cu_k.back();
  op.heads = s.heads, op.kv_heads = s.kv_heads, op.head_dim = s.head_dim;
  op.causal = s.causal;
  op.scale = static_cast<acc_t<T>>(1 / std::sqrt(s.head_dim));
  op.q = c.in("q", op.tokens_q, q_cols, s.pad), op.q_ld = q_cols + s.pad;
  op.k = c.in("k", op.tokens_k, k_cols, s.pad), op.k_ld = k_cols + s.pad;
  op.v = c.in("v", op.tokens_k, k_cols, s.pad), op.v_ld = k_cols + s.pad;
  return op;
}

void check_forward(const Problem& s) {
  check_cuda([&]<class T>(Case<T>& c) {
    Attention<T> op = forward(c, s);
    const int64_t cols = s.heads * s.head_dim;
    op.o = c.out("o", op.tokens_q, cols, s.pad), op.o_ld = cols + s.pad;
    op.lse = c.acc_out("lse", s.heads, op.tokens_q);
    return op;
  });
}

void check_backward(const Problem& s) {
  // o and lse of the forward in double, which every run of the backward gets.
  Case<double> first{Cpu{}};
  Attention<double> f = forward(first, s);
  const int64_t cols = s.heads * s.head_dim, k_cols = s.kv_heads * s.head_dim;
  std::vector<double> o(f.tokens_q * cols), lse(s.heads * f.tokens_q), delta(lse.size());
  f.o = o.data(), f.o_ld = cols, f.lse = lse.data();
  run_with_scratch(Cpu{}, f);
  if (s.delta) delta = random_values(static_cast<int64_t>(lse.size()), 7);

  const auto build = [&]<class T>(Case<T>& c) {
    const Attention<T> g = forward(c, s);
    AttentionBackward<T> op{};
    op.sequences = g.sequences;
    op.cu_q = g.cu_q, op.cu_k = g.cu_k, op.first_q = g.first_q, op.first_k = g.first_k;
    op.tokens_q = g.tokens_q, op.tokens_k = g.tokens_k;
    op.heads = g.heads, op.kv_heads = g.kv_heads, op.head_dim = g.head_dim;
    op.causal = g.causal, op.scale = g.scale;
    op.q = g.q, op.q_ld = g.q_ld, op.k = g.k, op.k_ld = g.k_ld, op.v = g.v, op.v_ld = g.v_ld;
    op.lse = c.acc_in("lse", s.heads, op.tokens_q, lse);
    if (s.delta)
      op.delta = c.acc_in("delta", s.heads, op.tokens_q, delta);
    else
      op.o = c.in("o", op.tokens_q, cols, s.pad, o), op.o_ld = cols + s.pad;
    op.d_o = c.in("d_o", op.tokens_q, cols, s.pad), op.d_o_ld = cols + s.pad;
    op.dq = c.out("dq", op.tokens_q, cols, s.pad), op.dq_ld = cols + s.pad;
    op.dk = c.out("dk", op.tokens_k, k_cols, s.pad), op.dk_ld = k_cols + s.pad;
    op.dv = c.out("dv", op.tokens_k, k_cols, s.pad), op.dv_ld = k_cols + s.pad;
    return op;
  };
  // P = exp(scale q k - lse), off as if lse were; with bf16 it is 2^x.
  static_assert(ulps::kExpf >= ulps::kEx2);
  check_cuda(build, {.inputs = {{"lse", [](double x, int64_t) { return x + ulps::kExpf * ulps::kFloat; }}}});
}

// More sequences than a warp compares at a time, most of them empty.
std::vector<int32_t> sparse(std::vector<std::pair<int, int32_t>> lengths) {
  std::vector<int32_t> all(40, 0);
  for (const auto& [at, length] : lengths) all[static_cast<size_t>(at)] = length;
  return all;
}

// Tiles of queries have 128 rows, of keys 64 or 96; backward's have 64 or 128 rows and 32, 48 or 64 columns.
const Problem kProblems[] = {
    {{40, 0, 300}, {40, 0, 300}, 2, 1, 64, true},
    {{37, 130}, {201, 0}, 2, 1, 8, false, {}, {}, 8},
    {sparse({{0, 3}, {31, 9}, {33, 2}, {39, 5}}), sparse({{0, 3}, {5, 4}, {31, 1}, {33, 7}, {39, 5}}), 2, 2,
     8, true},
    {{70}, {150}, 2, 1, 80, false, {}, {}, 0, true},
    {{33, 50}, {20, 140}, 1, 1, 72, true, {10, 100}, {12, 0}, 3},
    {{133}, {133}, 1, 1, 96, true},
    {{150}, {150}, 4, 1, 128, true, {0}, {100}},
    {{30, 1}, {10, 140}, 4, 2, 128, false, {}, {}, 1},
    {{135}, {135}, 1, 1, 256, true},
    {{0, 0}, {0, 0}, 2, 1, 64, true},
    {{}, {}, 2, 1, 64, true},
};

TEST(CudaAttention, Forward) {
  for (const Problem& s : kProblems) {
    SCOPED_TRACE(testing::Message() << s);
    check_forward(s);
  }
}

TEST(CudaAttention, Backward) {
  for (const Problem& s : kProblems) {
    SCOPED_TRACE(testing::Message() << s);
    check_backward(s);
  }
}

TEST(CudaAttention, BadArguments) {
  Case<float> c(cuda_context());
  for (const auto& [heads, head_dim, scale] :
       {std::tuple{3, 64, 1.f}, {2, 12, 1.f}, {2, 264, 1.f}, {2, 64, 0.f}}) {
    Attention<float> op = forward(c, {{4}, {4}, heads, 2, head_dim, true});
    op.scale = scale;
    EXPECT_THROW(run(cuda_context(), op), std::invalid_argument) << heads << " " << head_dim << " " << scale;
  }
}

TEST(CudaAttention, Merge) {
  struct {
    int64_t tokens;
    int heads, head_dim;
    int64_t pad;
  } const shapes[] = {{5, 3, 64, 0}, {7, 1, 80, 8}, {3, 2, 256, 1}, {0, 2, 8, 0}};
  const double inf = std::numeric_limits<double>::infinity();
  for (const auto& s : shapes)
    check_cuda([&]<class T>(Case<T>& c) {
      std::vector<double> lse_a = random_values(s.tokens * s.heads, 1),
                          lse_b = random_values(s.tokens * s.heads, 2);
      if (s.tokens > 0) lse_a[0] = lse_b[0] = lse_a[1] = lse_b[2] = -inf, lse_a[2] = 90;
      const int64_t cols = s.heads * s.head_dim;
      AttentionMerge<T> op{};
      op.tokens = s.tokens, op.heads = s.heads, op.head_dim = s.head_dim;
      op.o_a = c.inout("o_a", s.tokens, cols, s.pad), op.o_a_ld = cols + s.pad;
      op.lse_a = c.acc_inout("lse_a", s.heads, s.tokens, lse_a);
      op.o_b = c.in("o_b", s.tokens, cols, s.pad), op.o_b_ld = cols + s.pad;
      op.lse_b = c.acc_in("lse_b", s.heads, s.tokens, lse_b);
      return op;
    });
}

}  // namespace
}  // namespace mimo::op_test
