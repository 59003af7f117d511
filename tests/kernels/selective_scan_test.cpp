#include "kernels/selective_scan.h"

#include "tests/kernels/scan_testing.h"

namespace mimo {
namespace {

using namespace mimo::testing;

struct Problem {
  int C, N;
  std::vector<int32_t> cu{0};
  Values u, delta, b, c, z, delta_bias, a_log, d, state_in, dy, dstate_out;  // z, bias, states empty: null

  Problem(int channels, int state, const std::vector<int>& lengths, bool optional = true,
          double delta_low = -2, double delta_high = 1)
      : C(channels), N(state) {
    std::mt19937 rng(7);
    for (const int n : lengths) cu.push_back(cu.back() + n);
    const size_t t = tokens();
    u = random_values(t * C, rng);
    delta = random_values(t * C, rng, delta_low, delta_high);
    b = random_values(t * N, rng);
    c = random_values(t * N, rng);
    dy = random_values(t * C, rng);
    a_log = random_values(size_t(C) * N, rng);
    d = random_values(C, rng);
    if (optional) {
      z = random_values(t * C, rng, -3, 3);
      delta_bias = random_values(C, rng);
      state_in = random_values(lengths.size() * C * N, rng);
      dstate_out = random_values(lengths.size() * C * N, rng);
    }
  }
  int sequences() const { return static_cast<int>(cu.size()) - 1; }
  int64_t tokens() const { return cu.back(); }
};

struct Result {
  Values y, state_out, du, ddelta, db, dc, dz, ddelta_bias, da_log, dd, dstate_in;
  std::vector<std::pair<std::string, const Values*>> all() const {
    return {{"y", &y},
            {"state_out", &state_out},
            {"du", &du},
            {"ddelta", &ddelta},
            {"db", &db},
            {"dc", &dc},
            {"dz", &dz},
            {"ddelta_bias", &ddelta_bias},
            {"da_log", &da_log},
            {"dd", &dd},
            {"dstate_in", &dstate_in}};
  }
};

// The recurrence and back-propagation through it, token by token, in arithmetic of type R.
template <class R>
Result reference(const Problem& q) {
  const int C = q.C, N = q.N;
  std::vector<R> y(q.u.size()), du(q.u.size()), ddelta(q.u.size()), db(q.b.size()), dc(q.b.size()),
      dz(q.z.size());
  std::vector<R> dbias(C), da_log(size_t(C) * N), dd(C), out(size_t(q.sequences()) * C * N), din(out.size());
  for (int s = 0; s < q.sequences(); ++s)
    for (int c = 0; c < C; ++c) {
      const int first = q.cu[s], rows = q.cu[s + 1] - first;
      const size_t at = (size_t(s) * C + c) * N;
      std::vector<R> h(N), g(N), steps(rows), slopes(rows), sums(rows);
      if (!q.state_in.empty()) h.assign(q.state_in.begin() + at, q.state_in.begin() + at + N);
      if (!q.dstate_out.empty()) g.assign(q.dstate_out.begin() + at, q.dstate_out.begin() + at + N);
      std::vector<std::vector<R>> states{h};
      for (int i = 0; i < rows; ++i) {
        const int64_t t = first + i;
        const R raw = R(q.delta[t * C + c]) + (q.delta_bias.empty() ? R(0) : R(q.delta_bias[c]));
        steps[i] = raw > 20 ? raw : std::log1p(std::exp(raw));
        slopes[i] = raw > 20 ? R(1) : 1 / (1 + std::exp(-raw));
        sums[i] = R(q.d[c]) * R(q.u[t * C + c]);
        for (int n = 0; n < N; ++n) {
          h[n] = std::exp(-steps[i] * std::exp(R(q.a_log[c * N + n]))) * h[n] +
                 steps[i] * R(q.b[t * N + n]) * R(q.u[t * C + c]);
          sums[i] += R(q.c[t * N + n]) * h[n];
        }
        states.push_back(h);
        const R z = q.z.empty() ? R(0) : R(q.z[t * C + c]);
        y[t * C + c] = q.z.empty() ? sums[i] : sums[i] * z / (1 + std::exp(-z));
      }
      std::copy(h.begin(), h.end(), out.begin() + at);
      for (int i = rows - 1; i >= 0; --i) {
        const int64_t t = first + i;
        R dy = R(q.dy[t * C + c]);
        if (!q.z.empty()) {
          const R z = R(q.z[t * C + c]), sig = 1 / (1 + std::exp(-z));
          dz[t * C + c] = dy * sums[i] * sig * (1 + z * (1 - sig));
          dy *= z * sig;
        }
        const R u = R(q.u[t * C + c]);
        R gb = 0, through = 0;
        for (int n = 0; n < N; ++n) {
          const R a = -std::exp(R(q.a_log[c * N + n])), decay = std::exp(steps[i] * a);
          g[n] += R(q.c[t * N + n]) * dy;
          dc[t * N + n] += dy * states[i + 1][n];
          db[t * N + n] += g[n] * steps[i] * u;
          gb += g[n] * R(q.b[t * N + n]);
          through += g[n] * a * decay * states[i][n];
          da_log[c * N + n] += a * g[n] * steps[i] * decay * states[i][n];
          g[n] *= decay;
        }
        du[t * C + c] = R(q.d[c]) * dy + steps[i] * gb;
        ddelta[t * C + c] = (through + gb * u) * slopes[i];
        dbias[c] += ddelta[t * C + c];
        dd[c] += dy * u;
      }
      std::copy(g.begin(), g.end(), din.begin() + at);
    }
  return {from(y),  from(out),   from(du),     from(ddelta), from(db), from(dc),
          from(dz), from(dbias), from(da_log), from(dd),     from(din)};
}

template <class T>
Result kernel(const Problem& q, unsigned trainable = everything) {
  using A = acc_t<T>;
  const int64_t t = q.tokens();
  const size_t size = size_t(q.sequences()) * q.C * q.N;
  const bool gate = !q.z.empty(), biased = !q.delta_bias.empty();
  const Matrix<T> u(t, q.C, q.u), delta(t, q.C, q.delta, 1), b(t, q.N, q.b), c(t, q.N, q.c, 3),
      dy(t, q.C, q.dy);
  const Matrix<T> z = gate ? Matrix<T>(t, q.C, q.z) : Matrix<T>(0, 0);
  Matrix<T> y(t, q.C), du(t, q.C), ddelta(t, q.C), db(t, q.N), dc(t, q.N), dz(gate ? t : 0, q.C);
  const auto bias = to<A>(q.delta_bias), a_log = to<A>(q.a_log), d = to<A>(q.d), in = to<A>(q.state_in),
             dout = to<A>(q.dstate_out);
  const auto or_null = [](const auto& v) { return v.empty() ? nullptr : v.data(); };
  std::vector<A> out(size, A(NAN)), din(size, A(NAN)), dbias(q.C, A(1)), da_log(a_log.size(), A(1)),
      dd(q.C, A(1));
  const SelectiveScanInputs<T> inputs{.sequences = q.sequences(),
                                      .cu = q.cu.data(),
                                      .tokens = t,
                                      .channels = q.C,
                                      .state = q.N,
                                      .u = u,
                                      .delta = delta,
                                      .b = b,
                                      .c = c,
                                      .z = {gate ? z.data() : nullptr, z.ld()},
                                      .delta_bias = or_null(bias),
                                      .a_log = a_log.data(),
                                      .d = d.data(),
                                      .state_in = or_null(in)};
  run_op(SelectiveScan<T>{.in = inputs, .y = y, .state_out = out.data()});
  run_op(SelectiveScanBackward<T>{.in = inputs,
                                  .dy = dy,
                                  .dstate_out = or_null(dout),
                                  .du = du,
                                  .ddelta = ddelta,
                                  .db = db,
                                  .dc = dc,
                                  .dz = {gate ? dz.data() : nullptr, dz.ld()},
                                  .ddelta_bias = biased && trainable & 1 ? dbias.data() : nullptr,
                                  .da_log = trainable & 2 ? da_log.data() : nullptr,
                                  .dd = trainable & 4 ? dd.data() : nullptr,
                                  .dstate_in = din.data()});
  Result r{y.values(),  from(out),   du.values(),  ddelta.values(), db.values(), dc.values(),
           dz.values(), from(dbias), from(da_log), from(dd),        from(din)};
  for (Values* v : {&r.ddelta_bias, &r.da_log, &r.dd})
    for (double& g : *v) g -= 1;
  if (!biased) r.ddelta_bias = reference<double>(q).ddelta_bias;
  return r;
}

void expect_results_close(const Result& got, const Result& want, double relative) {
  for (size_t i = 0; i < got.all().size(); ++i)
    expect_close(*got.all()[i].second, *want.all()[i].second, relative, want.all()[i].first);
}

TEST(SelectiveScan, IsTheRecurrence) {
  for (const bool optional : {false, true})
    for (const auto& [C, N] : {std::pair{1, 1}, {5, 16}, {70, 4}, {33, 3}})
      for (const auto& lengths : {std::vector<int>{}, {0}, {1}, {63, 64, 65}, {0, 2, 200, 0, 7}}) {
        SCOPED_TRACE("channels " + std::to_string(C) + " state " + std::to_string(N));
        const Problem q(C, N, lengths, optional);
        expect_results_close(kernel<double>(q), reference<double>(q), 1e-11);
      }
}

TEST(SelectiveScan, GradientsAreCentralDifferences) {
  Problem q(3, 4, {3, 0, 9});
  const Result r = kernel<double>(q);
  const auto loss = [&] {
    const Result f = reference<double>(q);
    return inner(f.y, q.dy) + inner(f.state_out, q.dstate_out);
  };
  const std::pair<Values*, const Values*> pairs[] = {
      {&q.u, &r.du},        {&q.delta, &r.ddelta},           {&q.b, &r.db}, {&q.c, &r.dc},
      {&q.z, &r.dz},        {&q.delta_bias, &r.ddelta_bias}, {&q.d, &r.dd}, {&q.state_in, &r.dstate_in},
      {&q.a_log, &r.da_log}};
  for (const auto& [value, gradient] : pairs)
    expect_close(*gradient, central_differences(*value, loss), 2e-8, "");
}

TEST(SelectiveScan, TwoHalvesAreTheWhole) {
  const int T = 150, half = 70;
  const Problem q(9, 4, {T});
  const auto part = [&](int b, int e) {
    Problem p = q;
    const auto slice = [&](const Values& v, int cols) {
      return Values(v.begin() + b * cols, v.begin() + e * cols);
    };
    p.cu = {0, e - b};
    p.u = slice(q.u, q.C), p.delta = slice(q.delta, q.C), p.z = slice(q.z, q.C), p.dy = slice(q.dy, q.C);
    p.b = slice(q.b, q.N), p.c = slice(q.c, q.N);
    return p;
  };
  Problem first = part(0, half), second = part(half, T);
  second.state_in = kernel<double>(first).state_out;
  const Result b = kernel<double>(second);
  first.dstate_out = b.dstate_in;
  const Result a = kernel<double>(first);
  const auto joined = [](Values x, const Values& y) {
    x.insert(x.end(), y.begin(), y.end());
    return x;
  };
  const auto added = [](Values x, const Values& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
    return x;
  };
  expect_results_close(
      {joined(a.y, b.y), b.state_out, joined(a.du, b.du), joined(a.ddelta, b.ddelta), joined(a.db, b.db),
       joined(a.dc, b.dc), joined(a.dz, b.dz), added(a.ddelta_bias, b.ddelta_bias), added(a.da_log, b.da_log),
       added(a.dd, b.dd), a.dstate_in},
      kernel<double>(q), 1e-12);
}

template <class T>
void expect_as_good_as_plain(Problem q) {
  for (Values* v : {&q.u, &q.delta, &q.b, &q.c, &q.z, &q.dy}) *v = rounded<T>(*v);
  for (Values* v : {&q.delta_bias, &q.a_log, &q.d, &q.state_in, &q.dstate_out}) *v = rounded<float>(*v);
  const Result exact = reference<double>(q), got = kernel<T>(q);
  Result plain = reference<float>(q);
  for (Values* v : {&plain.y, &plain.du, &plain.ddelta, &plain.db, &plain.dc, &plain.dz}) *v = rounded<T>(*v);
  for (size_t i = 0; i < exact.all().size(); ++i)
    expect_as_good_as(*plain.all()[i].second, *got.all()[i].second, *exact.all()[i].second, epsilon<float>,
                      exact.all()[i].first);
}
TEST(SelectiveScan, FloatIsAsGoodAsPlain) { expect_as_good_as_plain<float>(Problem(40, 16, {300, 12})); }
TEST(SelectiveScan, Bf16IsAsGoodAsPlain) { expect_as_good_as_plain<bf16>(Problem(40, 16, {300, 12})); }
TEST(SelectiveScan, LargeStepsAreStable) {
  expect_as_good_as_plain<float>(Problem(40, 16, {200}, true, 5, 25));
  expect_as_good_as_plain<float>(Problem(40, 16, {200}, true, -8, 12));
}

TEST(SelectiveScan, DoesNotDependOnThreads) {
  const Problem q(200, 8, {300, 0, 17, 110, 64});
  Result results[2];
  for (const int n : {1, 2}) {
    Threads threads(n);
    results[n - 1] = kernel<float>(q);
  }
  for (size_t i = 0; i < results[0].all().size(); ++i)
    expect_same_bits(*results[1].all()[i].second, *results[0].all()[i].second, results[0].all()[i].first);
}

TEST(SelectiveScan, FrozenParametersChangeNothingElse) {
  const Problem q(40, 16, {30, 0, 1});
  expect_frozen_changes_nothing_else({"ddelta_bias", "da_log", "dd"},
                                     [&](unsigned t) { return kernel<float>(q, t); });
}

TEST(SelectiveScan, RefusesBadShapes) {
  SelectiveScan<float> op{};
  EXPECT_THROW(run(Cpu{}, op), std::invalid_argument);  // no state
  op.in.state = 4;
  EXPECT_THROW(run(Cpu{}, op), std::invalid_argument);  // no workspace
}

}  // namespace
}  // namespace mimo
