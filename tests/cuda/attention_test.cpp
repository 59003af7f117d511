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
AttentionInputs<T> inputs(Case<T>& c, const Problem& s) {
  const auto cu_q = cumulative(s.q_len), cu_k = cumulative(s.k_len);
  const int64_t tokens_q = cu_q.back(), tokens_k = cu_k.back(), k_cols = s.kv_heads * s.head_dim;
  return {.sequences = static_cast<int>(s.q_len.size()),
          .cu_q = c.ints(cu_q),
          .cu_k = c.ints(cu_k),
          .first_q = s.first_q.empty() ? nullptr : c.data(s.first_q),
          .first_k = s.first_k.empty() ? nullptr : c.data(s.first_k),
          .tokens_q = tokens_q,
          .tokens_k = tokens_k,
          .heads = s.heads,
          .kv_heads = s.kv_heads,
          .head_dim = s.head_dim,
          .causal = s.causal,
          .scale = static_cast<acc_t<T>>(1 / std::sqrt(s.head_dim)),
          .q = c.in("q", tokens_q, s.heads * s.head_dim, s.pad),
          .k = c.in("k", tokens_k, k_cols, s.pad),
          .v = c.in("v", tokens_k, k_cols, s.pad)};
}

void check_forward(const Problem& s) {
  check_cuda([&]<class T>(Case<T>& c) {
    const AttentionInputs<T> in = inputs(c, s);
    return Attention<T>{.in = in,
                        .o = c.out("o", in.tokens_q, s.heads * s.head_dim, s.pad),
                        .lse = c.acc_out("lse", s.heads, in.tokens_q)};
  });
}

void check_backward(const Problem& s) {
  // o and lse of the forward in double, which every run of the backward gets.
  Case<double> first{Cpu{}};
  const AttentionInputs<double> f = inputs(first, s);
  const int64_t cols = s.heads * s.head_dim, k_cols = s.kv_heads * s.head_dim;
  std::vector<double> o(f.tokens_q * cols), lse(s.heads * f.tokens_q), delta(lse.size());
  run_with_scratch(Cpu{}, Attention<double>{.in = f, .o = {o.data(), cols}, .lse = lse.data()});
  if (s.delta) delta = random_values(static_cast<int64_t>(lse.size()), 7);

  const auto build = [&]<class T>(Case<T>& c) {
    const AttentionInputs<T> in = inputs(c, s);
    const auto* lse_in = c.acc_in("lse", s.heads, in.tokens_q, lse);
    const auto* delta_in = s.delta ? c.acc_in("delta", s.heads, in.tokens_q, delta) : nullptr;
    return AttentionBackward<T>{.in = in,
                                .o = s.delta ? nullptr : c.in("o", in.tokens_q, cols, s.pad, o),
                                .lse = lse_in,
                                .delta = delta_in,
                                .d_o = c.in("d_o", in.tokens_q, cols, s.pad),
                                .dq = c.out("dq", in.tokens_q, cols, s.pad),
                                .dk = c.out("dk", in.tokens_k, k_cols, s.pad),
                                .dv = c.out("dv", in.tokens_k, k_cols, s.pad)};
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
    Attention<float> op{.in = inputs(c, {{4}, {4}, heads, 2, head_dim, true}), .o = {}, .lse = nullptr};
    op.in.scale = scale;
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
      return AttentionMerge<T>{.tokens = s.tokens,
                               .heads = s.heads,
                               .head_dim = s.head_dim,
                               .o_a = c.inout("o_a", s.tokens, cols, s.pad),
                               .lse_a = c.acc_inout("lse_a", s.heads, s.tokens, lse_a),
                               .o_b = c.in("o_b", s.tokens, cols, s.pad),
                               .lse_b = c.acc_in("lse_b", s.heads, s.tokens, lse_b)};
    });
}

}  // namespace
}  // namespace mimo::op_test
