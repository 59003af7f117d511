// Attention against its formula in double, its gradients against central differences.
#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

struct Case {
  std::vector<int32_t> q_len, k_len;
  int heads, kv_heads, head_dim;
  bool causal;
  std::vector<int64_t> first_q{}, first_k{};
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  out << "q {";
  for (const int n : c.q_len) out << n << " ";
  out << "} k {";
  for (const int n : c.k_len) out << n << " ";
  return out << "} heads " << c.heads << "/" << c.kv_heads << " dim " << c.head_dim
             << (c.causal ? " causal" : "");
}

std::vector<int32_t> cumulative(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> cu(lengths.size() + 1, 0);
  std::partial_sum(lengths.begin(), lengths.end(), cu.begin() + 1);
  return cu;
}

// The arrays of a problem; q, k and v are columns of one fused buffer, o and d_o have rows longer than they
// need.
template <class T>
struct Problem {
  using A = acc_t<T>;
  Case c;
  std::vector<int32_t> cu_q, cu_k;
  int64_t tokens_q, tokens_k, q_cols, kv_cols, ld, o_ld;
  A scale;
  std::vector<T> q, kv, o, d_o, dq, dkv;
  std::vector<A> lse;

  explicit Problem(const Case& which, int seed = 1)
      : c(which),
        cu_q(cumulative(c.q_len)),
        cu_k(cumulative(c.k_len)),
        tokens_q(cu_q.back()),
        tokens_k(cu_k.back()),
        q_cols(c.heads * c.head_dim),
        kv_cols(c.kv_heads * c.head_dim),
        ld(q_cols + 2 * kv_cols),
        o_ld(q_cols + 8),
        scale(static_cast<A>(1 / std::sqrt(c.head_dim))),
        q(tokens_q * ld),
        kv(tokens_k * ld),
        o(tokens_q * o_ld, nan()),
        d_o(tokens_q * o_ld),
        dq(tokens_q * ld, nan()),
        dkv(tokens_k * ld, nan()),
        lse(c.heads * tokens_q, static_cast<A>(nan())) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (auto* x : {&q, &kv, &d_o})
      for (T& y : *x) y = T(normal(random));
  }
  static T nan() { return T(std::numeric_limits<float>::quiet_NaN()); }
  const T* k() const { return kv.data() + q_cols; }
  const T* v() const { return k() + kv_cols; }

  AttentionInputs<T> inputs() const {
    return {.sequences = static_cast<int>(c.q_len.size()),
            .cu_q = cu_q.data(),
            .cu_k = cu_k.data(),
            .first_q = c.first_q.empty() ? nullptr : c.first_q.data(),
            .first_k = c.first_k.empty() ? nullptr : c.first_k.data(),
            .tokens_q = tokens_q,
            .tokens_k = tokens_k,
            .heads = c.heads,
            .kv_heads = c.kv_heads,
            .head_dim = c.head_dim,
            .causal = c.causal,
            .scale = scale,
            .q = {q.data(), ld},
            .k = {k(), ld},
            .v = {v(), ld}};
  }
  Attention<T> forward() { return {.in = inputs(), .o = {o.data(), o_ld}, .lse = lse.data()}; }
  AttentionBackward<T> backward() {
    T* dk = dkv.data() + q_cols;
    return {.in = inputs(),
            .o = {o.data(), o_ld},
            .lse = lse.data(),
            .d_o = {d_o.data(), o_ld},
            .dq = {dq.data(), ld},
            .dk = {dk, ld},
            .dv = {dk + kv_cols, ld}};
  }
};

// The workspace is exactly as large as asked for, so that a sanitizer sees every step beyond it.
template <class Op>
void compute(const Op& op) {
  Cpu cpu;
  std::vector<char> ws(workspace(cpu, op));
  cpu.ws = {ws.data(), static_cast<int64_t>(ws.size())};
  run(cpu, op);
}

struct Results {
  std::vector<double> o, lse, dq, dk, dv;
};

// The formula row by row: sums in S, every intermediate rounded to R. In a wider type it is the truth; with R
// = T it is the plain computation in T, whose error is the measure for the tiled one.
template <class R, class S, class T>
Results formula(const Problem<T>& p) {
  const auto round = [](S x) { return static_cast<S>(R(x)); };
  const Case& c = p.c;
  const int dim = c.head_dim;
  const S scale = static_cast<S>(p.scale), minus_inf = -std::numeric_limits<S>::infinity();
  std::vector<S> o(p.tokens_q * p.q_cols), lse(c.heads * p.tokens_q), dq(o.size()),
      dk(p.tokens_k * p.kv_cols), dv(dk.size());
  const auto dot = [&](const T* x, const T* y) {
    S sum = 0;
    for (int d = 0; d < dim; ++d) sum += static_cast<S>(x[d]) * static_cast<S>(y[d]);
    return round(sum);
  };
  for (size_t s = 0; s < c.q_len.size(); ++s)
    for (int h = 0; h < c.heads; ++h)
      for (int64_t i = 0; i < c.q_len[s]; ++i) {
        const int64_t row = p.cu_q[s] + i, column = h / (c.heads / c.kv_heads) * dim,
                      at_o = row * p.q_cols + h * dim;
        const T* q = p.q.data() + row * p.ld + h * dim;
        const T* d_o = p.d_o.data() + row * p.o_ld + h * dim;
        const T *k = p.k() + p.cu_k[s] * p.ld + column, *v = p.v() + p.cu_k[s] * p.ld + column;
        std::vector<S> score(c.k_len[s], minus_inf);
        S max = minus_inf, sum = 0, delta = 0;
        for (int64_t j = 0; j < c.k_len[s]; ++j) {
          const int64_t at_k = (c.first_k.empty() ? 0 : c.first_k[s]) + j;
          const int64_t at_q = (c.first_q.empty() ? 0 : c.first_q[s]) + i;
          if (c.causal && at_k > at_q) continue;
          score[j] = round(scale * dot(q, k + j * p.ld));
          max = std::max(max, score[j]);
        }
        if (max == minus_inf) max = 0;
        for (const S x : score) sum += round(std::exp(x - max));
        const S log_sum = lse[h * p.tokens_q + row] = max + std::log(sum);
        if (sum == 0) continue;
        for (int64_t j = 0; j < c.k_len[s]; ++j) {
          const S prob = round(round(std::exp(score[j] - max)) / sum);
          for (int d = 0; d < dim; ++d) o[at_o + d] += prob * static_cast<S>(v[j * p.ld + d]);
        }
        for (int d = 0; d < dim; ++d) {
          o[at_o + d] = round(o[at_o + d]);
          delta += o[at_o + d] * static_cast<S>(d_o[d]);
        }
        for (int64_t j = 0; j < c.k_len[s]; ++j) {
          const S prob = round(std::exp(score[j] - log_sum));
          const S ds = round(scale * prob * (dot(d_o, v + j * p.ld) - delta));
          const int64_t at_k = (p.cu_k[s] + j) * p.kv_cols + column;
          for (int d = 0; d < dim; ++d) {
            dq[at_o + d] += ds * static_cast<S>(k[j * p.ld + d]);
            dk[at_k + d] += ds * static_cast<S>(q[d]);
            dv[at_k + d] += prob * static_cast<S>(d_o[d]);
          }
        }
      }
  for (auto* x : {&dq, &dk, &dv})
    for (S& y : *x) y = round(y);
  const auto doubles = [](const std::vector<S>& x) { return std::vector<double>(x.begin(), x.end()); };
  return {doubles(o), doubles(lse), doubles(dq), doubles(dk), doubles(dv)};
}
template <class T>
Results exact(const Problem<T>& p) {
  using S = std::conditional_t<std::is_same_v<T, double>, long double, double>;
  return formula<S, S>(p);
}
// The log-sum-exp is kept in acc_t<T>, so its measure is the computation in that.
template <class T>
std::vector<double> plain_lse(const Problem<T>& p, const Results& low) {
  if constexpr (std::is_same_v<T, acc_t<T>>)
    return low.lse;
  else
    return formula<acc_t<T>, acc_t<T>>(p).lse;
}
template <class T>
Results plain(const Problem<T>& p) {
  return formula<T, acc_t<T>>(p);
}

double largest(const std::vector<double>& a) {
  double m = 0;
  for (const double x : a)
    if (std::isfinite(x)) m = std::max(m, std::abs(x));
  return m;
}

struct Error {
  double mean_square = 0, largest = 0;
  Error(const std::vector<double>& a, const std::vector<double>& b) {
    for (size_t i = 0; i < a.size(); ++i) {
      const double e = a[i] == b[i] ? 0 : std::abs(a[i] - b[i]);  // equal infinities
      mean_square += e * e / static_cast<double>(a.size());
      largest = std::max(largest, e);
    }
  }
};

// [rows, cols] with a row stride, as doubles.
template <class T>
std::vector<double> dense(const T* x, int64_t rows, int64_t cols, int64_t ld) {
  std::vector<double> y;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) y.push_back(static_cast<double>(x[i * ld + j]));
  return y;
}

template <class T>
Results computed(Problem<T>& p) {
  const T* dk = p.dkv.data() + p.q_cols;
  return {dense(p.o.data(), p.tokens_q, p.q_cols, p.o_ld), dense(p.lse.data(), 1, c_size(p), c_size(p)),
          dense(p.dq.data(), p.tokens_q, p.q_cols, p.ld), dense(dk, p.tokens_k, p.kv_cols, p.ld),
          dense(dk + p.kv_cols, p.tokens_k, p.kv_cols, p.ld)};
}
template <class T>
int64_t c_size(const Problem<T>& p) {
  return static_cast<int64_t>(p.lse.size());
}

// Root mean square error at most twice that of the plain computation in the same type, and no element worse
// than four times its worst one. Where that happens to be (almost) exact, a few roundings of the largest
// value, or of 1: the inputs are standard normal, so the terms of a sum are of order 1 even where they
// cancel.
template <class T>
void expect_close(const char* what, const std::vector<double>& got, const std::vector<double>& plain_result,
                  const std::vector<double>& truth) {
  const double u = std::is_same_v<T, double> ? 0x1p-53 : std::is_same_v<T, float> ? 0x1p-24 : 0x1p-8;
  const double unit = u * std::max(largest(truth), 1.0);
  const Error error(got, truth), measure(plain_result, truth);
  EXPECT_LE(std::sqrt(error.mean_square), std::max(2 * std::sqrt(measure.mean_square), 4 * unit)) << what;
  const double bound = std::max(4 * measure.largest, 8 * unit);
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == truth[i]) continue;
    ASSERT_LE(std::abs(got[i] - truth[i]), bound)
        << what << " differs first at element " << i << ": expected " << truth[i] << ", found " << got[i];
  }
}

const Case cases[] = {
    {{1}, {1}, 1, 1, 8, true},
    {{5, 0, 3}, {5, 0, 3}, 2, 1, 8, true},
    {{0, 7, 4}, {9, 0, 4}, 2, 2, 16, false},
    {{17, 33, 1, 16}, {17, 33, 1, 16}, 4, 4, 16, true},
    {{40, 23}, {40, 23}, 4, 1, 24, true},
    {{40, 23}, {31, 70}, 4, 2, 24, false},
    {{47, 48, 49}, {63, 64, 65}, 2, 2, 64, false},
    {{191, 192, 193}, {191, 192, 193}, 2, 1, 16, true},
    {{100}, {257}, 2, 2, 80, false},
    {{70}, {255}, 2, 1, 72, true, {185}, {}},
    {{66}, {130}, 2, 1, 128, true, {64}, {}},
    {{35}, {40}, 1, 1, 256, true},
    {{50, 20}, {50, 20}, 2, 2, 32, true, {0, 5}, {25, 100}},  // rows, then a whole sequence, that see nothing
    {{300}, {300}, 1, 1, 40, true, {0}, {280}},               // a whole tile of queries that sees nothing
    {{64, 10}, {600, 10}, 2, 1, 8, true, {536, 0}, {}},       // many blocks of keys
    {{400}, {400}, 1, 1, 16, true, {1000}, {1000}},           // long sequences at far positions
};

template <class T>
class AttentionOf : public testing::Test {};
using Types = testing::Types<float, bf16, double>;
TYPED_TEST_SUITE(AttentionOf, Types);

TYPED_TEST(AttentionOf, ForwardAndBackwardMatchTheFormula) {
  using T = TypeParam;
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c);
    Problem<T> p(c);
    compute(p.forward());
    compute(p.backward());
    const Results truth = exact(p), low = plain(p), got = computed(p);
    expect_close<T>("o", got.o, low.o, truth.o);
    expect_close<acc_t<T>>("lse", got.lse, plain_lse(p, low), truth.lse);
    expect_close<T>("dq", got.dq, low.dq, truth.dq);
    expect_close<T>("dk", got.dk, low.dk, truth.dk);
    expect_close<T>("dv", got.dv, low.dv, truth.dv);
    for (int64_t i = 0; i < p.tokens_q; ++i)
      for (int64_t j = p.q_cols; j < p.o_ld; ++j)
        ASSERT_TRUE(std::isnan(static_cast<double>(p.o[i * p.o_ld + j])));
  }
}

TEST(Attention, RowsThatSeeNothing) {
  Problem<float> p({{50}, {50}, 2, 2, 32, true, {0}, {25}});
  compute(p.forward());
  compute(p.backward());
  for (int64_t i = 0; i < 50; ++i)
    for (int h = 0; h < 2; ++h) {
      EXPECT_EQ(std::isinf(p.lse[h * 50 + i]), i < 25);
      if (i >= 25) continue;
      EXPECT_LT(p.lse[h * 50 + i], 0);
      for (int d = 0; d < 32; ++d) {
        EXPECT_EQ(p.o[i * p.o_ld + h * 32 + d], 0.f);
        EXPECT_EQ(p.dq[i * p.ld + h * 32 + d], 0.f);
      }
    }
}

// Scores around +-2000 overflow exp without the running maximum.
TEST(Attention, LargeScores) {
  Problem<float> p({{90}, {90}, 1, 1, 64, true});
  for (float& x : p.q) x *= 200;
  compute(p.forward());
  const Results truth = exact(p), low = plain(p), got = computed(p);
  expect_close<float>("o", got.o, low.o, truth.o);
  expect_close<float>("lse", got.lse, low.lse, truth.lse);
}

TEST(Attention, GradientsMatchCentralDifferences) {
  for (const Case& c : {Case{{4, 3}, {4, 3}, 2, 1, 8, true}, Case{{3, 2}, {5, 1}, 2, 2, 8, false},
                        Case{{5}, {6}, 4, 2, 8, true, {2}, {3}}}) {
    SCOPED_TRACE(testing::Message() << c);
    Problem<double> p(c);
    const auto loss = [&] {
      compute(p.forward());
      double sum = 0;
      for (int64_t i = 0; i < p.tokens_q; ++i)
        for (int64_t j = 0; j < p.q_cols; ++j) sum += p.o[i * p.o_ld + j] * p.d_o[i * p.o_ld + j];
      return sum;
    };
    loss();
    compute(p.backward());
    // Truncation h^2 f'''/6 and cancellation u |loss| / h are both near 1e-10.
    const double h = 1e-5;
    const auto expect_gradient = [&](std::vector<double>& x, const std::vector<double>& g, int64_t begin,
                                     int64_t end) {
      for (size_t i = 0; i < x.size(); ++i) {
        const int64_t column = static_cast<int64_t>(i) % p.ld;
        if (column < begin || column >= end) continue;
        const double old = x[i];
        x[i] = old + h;
        const double up = loss();
        x[i] = old - h;
        const double down = loss();
        x[i] = old;
        ASSERT_NEAR(g[i], (up - down) / (2 * h), 1e-8) << "element " << i;
      }
    };
    expect_gradient(p.q, p.dq, 0, p.q_cols);
    expect_gradient(p.kv, p.dkv, p.q_cols, p.ld);
  }
}

// Keys [0, half) and [half, all) of every sequence as two problems over the same queries.
template <class T>
std::vector<Problem<T>> split_keys(const Problem<T>& whole) {
  std::vector<Problem<T>> parts;
  for (const bool second : {false, true}) {
    Case c = whole.c;
    c.first_q.resize(c.q_len.size(), 0), c.first_k.resize(c.q_len.size(), 0);
    for (size_t s = 0; s < c.k_len.size(); ++s) {
      const int32_t half = whole.c.k_len[s] / 2;
      c.k_len[s] = second ? whole.c.k_len[s] - half : half;
      if (second) c.first_k[s] += half;
    }
    Problem<T> p(c);
    p.q = whole.q, p.d_o = whole.d_o;
    for (size_t s = 0; s < c.k_len.size(); ++s)
      std::copy_n(whole.kv.begin() + (whole.cu_k[s] + (second ? whole.c.k_len[s] / 2 : 0)) * whole.ld,
                  c.k_len[s] * p.ld, p.kv.begin() + p.cu_k[s] * p.ld);
    parts.push_back(std::move(p));
  }
  return parts;
}

TYPED_TEST(AttentionOf, PartsOverKeysMergeToTheWhole) {
  using T = TypeParam;
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c);
    Problem<T> whole(c);
    std::vector<Problem<T>> parts = split_keys(whole);
    for (Problem<T>& p : parts) compute(p.forward());
    Problem<T>&a = parts[0], &b = parts[1];
    run(Cpu{}, AttentionMerge<T>{.tokens = a.tokens_q,
                                 .heads = c.heads,
                                 .head_dim = c.head_dim,
                                 .o_a = {a.o.data(), a.o_ld},
                                 .lse_a = a.lse.data(),
                                 .o_b = {b.o.data(), b.o_ld},
                                 .lse_b = b.lse.data()});
    const Results truth = exact(whole), low = plain(whole), got = computed(a);
    expect_close<T>("o", got.o, low.o, truth.o);
    expect_close<acc_t<T>>("lse", got.lse, plain_lse(whole, low), truth.lse);
  }
}

TEST(Attention, BackwardWithOutsideLseAndDeltaSumsOverKeys) {
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c);
    Problem<float> whole(c);
    compute(whole.forward());
    std::vector<float> delta(whole.lse.size());
    for (int h = 0; h < c.heads; ++h)
      for (int64_t i = 0; i < whole.tokens_q; ++i)
        for (int d = 0; d < c.head_dim; ++d)
          delta[h * whole.tokens_q + i] +=
              whole.o[i * whole.o_ld + h * c.head_dim + d] * whole.d_o[i * whole.o_ld + h * c.head_dim + d];
    const Results truth = exact(whole), low = plain(whole);
    std::vector<Problem<float>> parts = split_keys(whole);
    std::vector<double> dq(truth.dq.size());
    Results sum{{}, {}, dq, {}, {}};
    for (Problem<float>& p : parts) {
      AttentionBackward<float> op = p.backward();
      op.lse = whole.lse.data(), op.delta = delta.data(), op.o = {};
      compute(op);
      const Results r = computed(p);
      for (size_t i = 0; i < dq.size(); ++i) sum.dq[i] += r.dq[i];
    }
    expect_close<float>("dq", sum.dq, low.dq, truth.dq);
    const Results first = computed(parts[0]), second = computed(parts[1]);
    for (size_t s = 0; s < c.k_len.size(); ++s) {
      const auto append = [&](const Problem<float>& p, const Results& r) {
        const auto begin = p.cu_k[s] * p.kv_cols, end = p.cu_k[s + 1] * p.kv_cols;
        sum.dk.insert(sum.dk.end(), r.dk.begin() + begin, r.dk.begin() + end);
        sum.dv.insert(sum.dv.end(), r.dv.begin() + begin, r.dv.begin() + end);
      };
      append(parts[0], first);
      append(parts[1], second);
    }
    expect_close<float>("dk", sum.dk, low.dk, truth.dk);
    expect_close<float>("dv", sum.dv, low.dv, truth.dv);
  }
}

TYPED_TEST(AttentionOf, BitsDoNotDependOnThreads) {
  using T = TypeParam;
  const int threads = thread_count();
  for (const Case& c :
       {Case{{530, 7, 300}, {530, 7, 300}, 4, 2, 16, true}, Case{{100}, {1100}, 2, 1, 24, false}}) {
    SCOPED_TRACE(testing::Message() << c);
    std::vector<Problem<T>> p(3, Problem<T>(c));
    for (int n = 0; n < 3; ++n) {
      set_thread_count(n + 1);
      compute(p[n].forward());
      compute(p[n].backward());
    }
    set_thread_count(threads);
    for (int n = 1; n < 3; ++n) {
      const auto same = [](const auto& a, const auto& b) {
        return !std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0]));
      };
      EXPECT_TRUE(same(p[0].o, p[n].o));
      EXPECT_TRUE(same(p[0].lse, p[n].lse));
      EXPECT_TRUE(same(p[0].dq, p[n].dq));
      EXPECT_TRUE(same(p[0].dkv, p[n].dkv));
    }
  }
}

TEST(Attention, BadArguments) {
  Problem<float> p({{4}, {4}, 2, 2, 8, true});
  Attention<float> op = p.forward();
  op.in.head_dim = 12;
  EXPECT_THROW(run(Cpu{}, op), std::invalid_argument);
  op.in.head_dim = 264;
  EXPECT_THROW(run(Cpu{}, op), std::invalid_argument);
  op = p.forward();
  op.in.kv_heads = 3;
  EXPECT_THROW(run(Cpu{}, op), std::invalid_argument);
  EXPECT_THROW(run(Cpu{}, p.forward()), std::invalid_argument);  // no workspace
  EXPECT_THROW(run(Cpu{}, p.backward()), std::invalid_argument);
}

TEST(Attention, NoTokens) {
  Problem<float> none({{}, {}, 2, 2, 8, true}), empty({{0, 0}, {0, 0}, 2, 2, 8, true});
  for (Problem<float>* p : {&none, &empty}) {
    compute(p->forward());
    compute(p->backward());
  }
}

}  // namespace
}  // namespace mimo
