#include "kernels/causal_conv.h"

#include "tests/kernels/scan_testing.h"

namespace mimo {
namespace {

using namespace mimo::testing;

struct Problem {
  int C, W;
  std::vector<int32_t> cu{0};
  Values x, weight, bias, state_in, dy, dstate_out;  // bias and states empty: null

  Problem(int channels, int width, const std::vector<int>& lengths, bool with_bias = true, bool states = true)
      : C(channels), W(width) {
    std::mt19937 rng(3);
    for (const int n : lengths) cu.push_back(cu.back() + n);
    x = random_values(tokens() * C, rng, -2, 2);
    dy = random_values(tokens() * C, rng);
    weight = random_values(size_t(C) * W, rng);
    if (with_bias) bias = random_values(C, rng);
    if (states) {
      state_in = random_values(lengths.size() * (W - 1) * C, rng);
      dstate_out = random_values(lengths.size() * (W - 1) * C, rng);
    }
  }
  int sequences() const { return static_cast<int>(cu.size()) - 1; }
  int64_t tokens() const { return cu.back(); }
};

struct Result {
  Values y, state_out, dx, dweight, dbias, dstate_in;
  std::vector<std::pair<std::string, const Values*>> all() const {
    return {{"y", &y},         {"state_out", &state_out}, {"dx", &dx}, {"dweight", &dweight},
            {"dbias", &dbias}, {"dstate_in", &dstate_in}};
  }
};

// The convolution of each sequence with its state before it, and its transpose, in arithmetic of type R.
template <class R>
Result reference(const Problem& q) {
  const int C = q.C, W = q.W;
  Result r{Values(q.x.size()), Values(size_t(q.sequences()) * (W - 1) * C),
           Values(q.x.size()), Values(q.weight.size()),
           Values(C),          Values(size_t(q.sequences()) * (W - 1) * C)};
  std::vector<R> dweight(C * W), dbias(C);
  for (int s = 0; s < q.sequences(); ++s)
    for (int c = 0; c < C; ++c) {
      const int first = q.cu[s], n = q.cu[s + 1] - first;
      std::vector<R> v(n + W - 1), dv(n + W - 1);
      for (int i = 0; i < W - 1; ++i) {
        const size_t at = (size_t(s) * (W - 1) + i) * C + c;
        if (!q.state_in.empty()) v[i] = R(q.state_in[at]);
        if (!q.dstate_out.empty()) dv[n + i] = R(q.dstate_out[at]);
      }
      for (int t = 0; t < n; ++t) v[W - 1 + t] = R(q.x[(first + t) * C + c]);
      for (int t = 0; t < n; ++t) {
        R u = q.bias.empty() ? R(0) : R(q.bias[c]);
        for (int k = 0; k < W; ++k) u += R(q.weight[c * W + k]) * v[t + k];
        const R g = 1 / (1 + std::exp(-u)), du = R(q.dy[(first + t) * C + c]) * g * (1 + u * (1 - g));
        r.y[(first + t) * C + c] = u * g;
        for (int k = 0; k < W; ++k) {
          dv[t + k] += R(q.weight[c * W + k]) * du;
          dweight[c * W + k] += du * v[t + k];
        }
        dbias[c] += du;
      }
      for (int i = 0; i < W - 1; ++i) {
        const size_t at = (size_t(s) * (W - 1) + i) * C + c;
        r.state_out[at] = v[n + i];
        r.dstate_in[at] = dv[i];
      }
      for (int t = 0; t < n; ++t) r.dx[(first + t) * C + c] = dv[W - 1 + t];
    }
  r.dweight = from(dweight);
  r.dbias = from(dbias);
  return r;
}

template <class T>
Result kernel(const Problem& q, unsigned trainable = everything) {
  using A = acc_t<T>;
  const int64_t t = q.tokens();
  const size_t size = size_t(q.sequences()) * (q.W - 1) * q.C;
  const Matrix<T> x(t, q.C, q.x, 7), dy(t, q.C, q.dy);
  Matrix<T> y(t, q.C), dx(t, q.C, 9);
  const auto weight = to<T>(q.weight), bias = to<T>(q.bias), in = to<T>(q.state_in),
             dout = to<T>(q.dstate_out);
  const auto or_null = [](const auto& v) { return v.empty() ? nullptr : v.data(); };
  std::vector<T> out(size, T(NAN)), din(size, T(NAN));
  std::vector<A> dweight(q.weight.size(), A(1)), dbias(q.C, A(1));
  const CausalConvInputs<T> inputs{.sequences = q.sequences(),
                                   .cu = q.cu.data(),
                                   .tokens = t,
                                   .channels = q.C,
                                   .width = q.W,
                                   .x = x,
                                   .weight = weight.data(),
                                   .bias = or_null(bias),
                                   .state_in = or_null(in)};
  run(Cpu{}, CausalConv<T>{.in = inputs, .y = y, .state_out = out.data()});
  run_op(CausalConvBackward<T>{.in = inputs,
                               .dy = dy,
                               .dstate_out = or_null(dout),
                               .dx = dx,
                               .dweight = trainable & 1 ? dweight.data() : nullptr,
                               .dbias = trainable & 2 && !q.bias.empty() ? dbias.data() : nullptr,
                               .dstate_in = din.data()});
  Result r{y.values(), from(out), dx.values(), from(dweight), from(dbias), from(din)};
  for (double& g : r.dweight) g -= 1;
  if (q.bias.empty())
    r.dbias = reference<double>(q).dbias;
  else
    for (double& g : r.dbias) g -= 1;
  return r;
}

TEST(CausalConv, IsTheFormulaForEveryWidthAndShape) {
  for (int W = 2; W <= 8; ++W)
    for (const int C : {1, 64, 70})
      for (const bool with : {false, true}) {
        SCOPED_TRACE("width " + std::to_string(W) + " channels " + std::to_string(C));
        const Problem q(C, W, {0, 1, 2, 33, 0, W - 1, 70, W}, with, with);
        const Result got = kernel<double>(q), want = reference<double>(q);
        for (size_t i = 0; i < got.all().size(); ++i)
          expect_close(*got.all()[i].second, *want.all()[i].second, 1e-13, want.all()[i].first);
      }
}

TEST(CausalConv, NoTokensAndNoChannels) {
  kernel<float>(Problem(5, 4, {}, true, false));
  const Result r = kernel<float>(Problem(5, 4, {0, 0}));
  EXPECT_EQ(r.dstate_in, rounded<float>(Problem(5, 4, {0, 0}).dstate_out));
  kernel<float>(Problem(0, 4, {3}));
}

TEST(CausalConv, GradientsAreCentralDifferences) {
  Problem q(3, 4, {5, 0, 2, 40});
  const Result r = kernel<double>(q);
  const auto loss = [&] {
    const Result f = reference<double>(q);
    return inner(f.y, q.dy) + inner(f.state_out, q.dstate_out);
  };
  expect_close(r.dx, central_differences(q.x, loss), 1e-8, "dx");
  expect_close(r.dweight, central_differences(q.weight, loss), 1e-8, "dweight");
  expect_close(r.dbias, central_differences(q.bias, loss), 1e-8, "dbias");
  expect_close(r.dstate_in, central_differences(q.state_in, loss), 1e-8, "dstate_in");
}

TEST(CausalConv, TwoHalvesAreTheWhole) {
  for (const int half : {1, 2, 17}) {
    const Problem q(6, 4, {40});
    const auto part = [&](int b, int e) {
      Problem p = q;
      p.cu = {0, e - b};
      p.x.assign(q.x.begin() + b * q.C, q.x.begin() + e * q.C);
      p.dy.assign(q.dy.begin() + b * q.C, q.dy.begin() + e * q.C);
      return p;
    };
    Problem first = part(0, half), second = part(half, 40);
    second.state_in = kernel<double>(first).state_out;
    Result b = kernel<double>(second);
    first.dstate_out = b.dstate_in;
    Result a = kernel<double>(first);
    const Result whole = kernel<double>(q);
    a.y.insert(a.y.end(), b.y.begin(), b.y.end());
    a.dx.insert(a.dx.end(), b.dx.begin(), b.dx.end());
    for (size_t i = 0; i < a.dweight.size(); ++i) a.dweight[i] += b.dweight[i];
    expect_close(a.y, whole.y, 1e-14, "y");
    expect_close(a.dx, whole.dx, 1e-14, "dx");
    expect_close(a.dweight, whole.dweight, 1e-13, "dweight");
    expect_close(a.dstate_in, whole.dstate_in, 1e-14, "dstate_in");
    expect_close(b.state_out, whole.state_out, 0, "state_out");
  }
}

template <class T>
void expect_as_good_as_plain() {
  Problem q(70, 4, {300, 2, 64});
  for (Values* v : {&q.x, &q.dy, &q.weight, &q.bias, &q.state_in, &q.dstate_out}) *v = rounded<T>(*v);
  const Result exact = reference<double>(q), got = kernel<T>(q);
  Result plain = reference<float>(q);
  for (Values* v : {&plain.y, &plain.dx, &plain.dstate_in}) *v = rounded<T>(*v);
  for (size_t i = 0; i < exact.all().size(); ++i)
    expect_as_good_as(*plain.all()[i].second, *got.all()[i].second, *exact.all()[i].second, epsilon<float>,
                      exact.all()[i].first);
}
TEST(CausalConv, FloatIsAsGoodAsPlain) { expect_as_good_as_plain<float>(); }
TEST(CausalConv, Bf16IsAsGoodAsPlain) { expect_as_good_as_plain<bf16>(); }

TEST(CausalConv, DoesNotDependOnThreads) {
  const Problem q(200, 4, {300, 0, 17, 410});
  Result results[2];
  for (const int n : {1, 2}) {
    Threads threads(n);
    results[n - 1] = kernel<float>(q);
  }
  for (size_t i = 0; i < results[0].all().size(); ++i)
    expect_same_bits(*results[1].all()[i].second, *results[0].all()[i].second, results[0].all()[i].first);
}

TEST(CausalConv, FrozenParametersChangeNothingElse) {
  const Problem q(70, 4, {30, 0, 1});
  expect_frozen_changes_nothing_else({"dweight", "dbias"}, [&](unsigned t) { return kernel<float>(q, t); });
}

TEST(CausalConv, RefusesOtherWidths) {
  for (const int width : {0, 1, 9}) {
    CausalConv<float> op{};
    op.in.width = width;
    EXPECT_THROW(run(Cpu{}, op), std::invalid_argument);
  }
}

}  // namespace
}  // namespace mimo
