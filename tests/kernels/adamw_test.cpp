#include "kernels/adamw.h"

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

constexpr int64_t kSizes[] = {0, 1, 1000, 4097, 9};
constexpr double kDecay[] = {0, 1, 1, 0, 1}, kRate[] = {1, 1, 0.5, 1, 2};

std::vector<std::vector<double>> numbers(uint64_t seed) {
  std::vector<std::vector<double>> all;
  for (int64_t n : kSizes) all.push_back(random_values(n, seed + all.size()));
  return all;
}

AdamState state_at(int64_t t) {
  return {.lr = 1e-2,
          .beta1 = 0.9,
          .beta2 = 0.95,
          .eps = 1e-8,
          .weight_decay = 0.1,
          .scale = 0.25 / double(t),
          .t = t};
}

template <class T>
void check() {
  using A = acc_t<T>;
  std::vector<std::vector<T>> param;
  std::vector<std::vector<A>> master, m, v;
  std::vector<std::vector<double>> want = numbers(1), want_m(5), want_v(5);
  for (int i = 0; i < 5; ++i) {
    param.emplace_back();
    master.emplace_back(want[i].begin(), want[i].end());
    for (double x : want[i]) param[i].push_back(T(A(x)));
    m.emplace_back(kSizes[i], A(0)), v.emplace_back(kSizes[i], A(0));
    want_m[i].assign(kSizes[i], 0), want_v[i].assign(kSizes[i], 0);
  }
  for (int64_t t = 1; t <= 5; ++t) {
    const AdamState s = state_at(t);
    const auto g = numbers(10 * t);
    int64_t total = 0;
    std::vector<std::vector<A>> grad;
    std::vector<AdamTensor<T>> tensors;
    for (int i = 0; i < 5; ++i) {
      grad.emplace_back(g[i].begin(), g[i].end());
      A* weights = master[i].data();
      if constexpr (std::is_same_v<T, A>) weights = param[i].data();
      tensors.push_back({.n = kSizes[i],
                         .param = param[i].data(),
                         .master = weights,
                         .grad = grad[i].data(),
                         .m = m[i].data(),
                         .v = v[i].data(),
                         .decay = kDecay[i],
                         .lr = kRate[i]});
      total += kSizes[i];
    }
    run_op(AdamW<T>{.tensors = 5, .total = total, .tensor = tensors.data(), .state = &s});
    for (int i = 0; i < 5; ++i)
      for (int64_t k = 0; k < kSizes[i]; ++k) {
        const double gk = g[i][k] * s.scale;
        want_m[i][k] = s.beta1 * want_m[i][k] + (1 - s.beta1) * gk;
        want_v[i][k] = s.beta2 * want_v[i][k] + (1 - s.beta2) * gk * gk;
        const double mhat = want_m[i][k] / (1 - std::pow(s.beta1, t)),
                     vhat = want_v[i][k] / (1 - std::pow(s.beta2, t));
        want[i][k] -=
            s.lr * kRate[i] * (mhat / (std::sqrt(vhat) + s.eps) + s.weight_decay * kDecay[i] * want[i][k]);
      }
  }
  for (int i = 0; i < 5; ++i)
    for (int64_t k = 0; k < kSizes[i]; ++k) {
      // |p| <= 2 and the update's parts are of order one: ten roundings of a step, five steps.
      const double bound = 50 * double(std::numeric_limits<A>::epsilon());
      double p = double(param[i][k]);
      if constexpr (!std::is_same_v<T, A>) {
        EXPECT_EQ(param[i][k].bits, T(master[i][k]).bits) << "the parameter is not the rounded master";
        p = double(master[i][k]);
      }
      ASSERT_NEAR(p, want[i][k], bound) << "tensor " << i << " element " << k;
      ASSERT_NEAR(double(m[i][k]), want_m[i][k], bound);
      ASSERT_NEAR(double(v[i][k]), want_v[i][k], bound);
    }
}

TEST(AdamW, AgainstTheFormula) {
  check<double>();
  check<float>();
  check<bf16>();
}

// A shard of a parameter is updated to the same bits as the whole: ZeRO's cut changes nothing.
TEST(AdamW, InPiecesAsAtOnceForAnyNumberOfThreads) {
  constexpr int64_t n = 50001;
  const auto p = random_values(n, 1), g = random_values(n, 2);
  const AdamState s = state_at(3);
  const auto update = [&](int64_t piece) {
    std::vector<float> param(p.begin(), p.end()), grad(g.begin(), g.end()), m(grad), v(n, 0.5f);
    std::vector<AdamTensor<float>> tensors;
    for (int64_t i = 0; i < n; i += piece)
      tensors.push_back({.n = std::min(piece, n - i),
                         .param = &param[i],
                         .master = &param[i],
                         .grad = &grad[i],
                         .m = &m[i],
                         .v = &v[i]});
    run_op(AdamW<float>{
        .tensors = static_cast<int>(tensors.size()), .total = n, .tensor = tensors.data(), .state = &s});
    return param;
  };
  const int before = thread_count();
  set_thread_count(1);
  const auto whole = update(n);
  EXPECT_EQ(update(777), whole);
  set_thread_count(3);
  EXPECT_EQ(update(n), whole);
  EXPECT_EQ(update(777), whole);
  set_thread_count(before);
}

}  // namespace
}  // namespace mimo::op_test
