#include "kernels/ssd.h"

#include <limits>

#include "tests/kernels/scan_testing.h"

namespace mimo {
namespace {

using namespace mimo::testing;

constexpr double inf = std::numeric_limits<double>::infinity();

struct Problem {
  int H, P, G, N, Q;
  std::vector<int32_t> cu;
  Values x, b, c, dt, dt_bias, a_log, d, state_in, dy, dstate_out;  // states empty: null
  double dt_min = 0, dt_max = inf;

  Problem(int heads, int head_dim, int groups, int state, int chunk, const std::vector<int>& lengths,
          bool states = true, double dt_low = -2, double dt_high = 1, unsigned seed = 1)
      : H(heads), P(head_dim), G(groups), N(state), Q(chunk), cu{0} {
    std::mt19937 rng(seed);
    for (const int n : lengths) cu.push_back(cu.back() + n);
    const size_t t = tokens();
    x = random_values(t * H * P, rng);
    b = random_values(t * G * N, rng);
    c = random_values(t * G * N, rng);
    dt = random_values(t * H, rng, dt_low, dt_high);
    dt_bias = random_values(H, rng);
    a_log = random_values(H, rng);
    d = random_values(H, rng);
    dy = random_values(t * H * P, rng);
    if (states) {
      state_in = random_values(lengths.size() * H * P * N, rng);
      dstate_out = random_values(lengths.size() * H * P * N, rng);
    }
  }
  int sequences() const { return static_cast<int>(cu.size()) - 1; }
  int64_t tokens() const { return cu.back(); }
};

struct Result {
  Values y, state_out;
  Values dx, db, dc, ddt, ddt_bias, da_log, dd, dstate_in;
  std::vector<std::pair<std::string, const Values*>> all() const {
    return {{"y", &y},
            {"state_out", &state_out},
            {"dx", &dx},
            {"db", &db},
            {"dc", &dc},
            {"ddt", &ddt},
            {"ddt_bias", &ddt_bias},
            {"da_log", &da_log},
            {"dd", &dd},
            {"dstate_in", &dstate_in}};
  }
};

// The recurrence and back-propagation through it, token by token, in arithmetic of type R.
template <class R>
Result reference(const Problem& q) {
  const int H = q.H, P = q.P, G = q.G, N = q.N;
  const auto R_of = [](const Values& v) { return std::vector<R>(v.begin(), v.end()); };
  const auto x = R_of(q.x), b = R_of(q.b), c = R_of(q.c), dy = R_of(q.dy);
  std::vector<R> y(q.x.size()), dx(q.x.size()), db(q.b.size()), dc(q.c.size()), ddt(q.dt.size());
  std::vector<R> ddt_bias(H), da_log(H), dd(H);
  std::vector<R> state_out(size_t(q.sequences()) * H * P * N), dstate_in(state_out.size());
  for (int s = 0; s < q.sequences(); ++s)
    for (int h = 0; h < H; ++h) {
      const int g = h / (H / G), first = q.cu[s], n_rows = q.cu[s + 1] - first;
      const size_t at = (size_t(s) * H + h) * P * N;
      std::vector<R> S(P * N), E(P * N);
      if (!q.state_in.empty()) std::copy_n(q.state_in.begin() + at, P * N, S.begin());
      if (!q.dstate_out.empty()) std::copy_n(q.dstate_out.begin() + at, P * N, E.begin());
      std::vector<std::vector<R>> before;
      std::vector<R> dts, slopes;
      const R a = -std::exp(R(q.a_log[h]));
      for (int i = 0; i < n_rows; ++i) {
        const int64_t t = first + i;
        const R raw = R(q.dt[t * H + h]) + R(q.dt_bias[h]);
        const R plus = raw > 20 ? raw : std::log1p(std::exp(raw));
        dts.push_back(std::clamp(plus, R(q.dt_min), R(q.dt_max)));
        const R slope = raw > 20 ? R(1) : 1 / (1 + std::exp(-raw));
        slopes.push_back(plus >= R(q.dt_min) && plus <= R(q.dt_max) ? slope : R(0));
        before.push_back(S);
        for (int p = 0; p < P; ++p) {
          R sum = R(q.d[h]) * x[(t * H + h) * P + p];
          for (int n = 0; n < N; ++n) {
            R& v = S[p * N + n];
            v = std::exp(dts[i] * a) * v + dts[i] * x[(t * H + h) * P + p] * b[(t * G + g) * N + n];
            sum += v * c[(t * G + g) * N + n];
          }
          y[(t * H + h) * P + p] = sum;
        }
      }
      std::copy(S.begin(), S.end(), state_out.begin() + at);
      for (int i = n_rows - 1; i >= 0; --i) {
        const int64_t t = first + i;
        const std::vector<R>& after = i + 1 < n_rows ? before[i + 1] : S;
        const R decay = std::exp(dts[i] * a);
        R direct = 0, through = 0;
        for (int p = 0; p < P; ++p) {
          const R xp = x[(t * H + h) * P + p], dyp = dy[(t * H + h) * P + p];
          R u = 0;
          for (int n = 0; n < N; ++n) {
            R& e = E[p * N + n];
            const size_t bn = (t * G + g) * N + n;
            e += dyp * c[bn];
            dc[bn] += dyp * after[p * N + n];
            db[bn] += dts[i] * e * xp;
            u += e * b[bn];
            e *= decay;
            through += e * before[i][p * N + n];
          }
          dx[(t * H + h) * P + p] = dts[i] * u + R(q.d[h]) * dyp;
          direct += xp * u;
          dd[h] += xp * dyp;
        }
        ddt[t * H + h] = (direct + a * through) * slopes[i];
        ddt_bias[h] += ddt[t * H + h];
        da_log[h] += a * dts[i] * through;
      }
      std::copy(E.begin(), E.end(), dstate_in.begin() + at);
    }
  return {from(y),   from(state_out), from(dx),     from(db), from(dc),
          from(ddt), from(ddt_bias),  from(da_log), from(dd), from(dstate_in)};
}

// The kernels. Parameter gradients start at 1, which is taken off; everything else starts as NaN.
template <class T>
Result kernel(const Problem& q, bool states = true, unsigned trainable = everything) {
  using A = acc_t<T>;
  const int64_t t = q.tokens(), hp = q.H * q.P, gn = q.G * q.N, size = int64_t{q.sequences()} * hp * q.N;
  // B and C are slices of one buffer, as in a fused projection.
  Values fused;
  for (int64_t i = 0; i < t; ++i) {
    fused.insert(fused.end(), q.b.begin() + i * gn, q.b.begin() + (i + 1) * gn);
    fused.insert(fused.end(), q.c.begin() + i * gn, q.c.begin() + (i + 1) * gn);
  }
  const Matrix<T> x(t, hp, q.x), bc(t, 2 * gn, fused, 3), dt(t, q.H, q.dt), dy(t, hp, q.dy);
  Matrix<T> y(t, hp), dx(t, hp), db(t, gn), dc(t, gn), ddt(t, q.H);
  const auto dt_bias = to<A>(q.dt_bias), a_log = to<A>(q.a_log), d = to<A>(q.d);
  const auto state_in = to<A>(q.state_in), dstate_out = to<A>(q.dstate_out);
  std::vector<A> state_out(size, A(NAN)), dstate_in(size, A(NAN)), ddt_bias(q.H, A(1)), da_log(q.H, A(1)),
      dd(q.H, A(1));
  const A* in = q.state_in.empty() ? nullptr : state_in.data();
  const A* dout = q.dstate_out.empty() ? nullptr : dstate_out.data();
  const SsdInputs<T> inputs{.sequences = q.sequences(),
                            .cu = q.cu.data(),
                            .tokens = t,
                            .heads = q.H,
                            .head_dim = q.P,
                            .groups = q.G,
                            .state = q.N,
                            .chunk = q.Q,
                            .x = x,
                            .b = bc,
                            .c = {bc.data() + gn, bc.ld()},
                            .dt = dt,
                            .dt_bias = dt_bias.data(),
                            .a_log = a_log.data(),
                            .d = d.data(),
                            .dt_min = A(q.dt_min),
                            .dt_max = A(q.dt_max),
                            .state_in = in};
  run_op(Ssd<T>{.in = inputs, .y = y, .state_out = states ? state_out.data() : nullptr});
  run_op(SsdBackward<T>{.in = inputs,
                        .dy = dy,
                        .dstate_out = dout,
                        .dx = dx,
                        .db = db,
                        .dc = dc,
                        .ddt = ddt,
                        .ddt_bias = trainable & 1 ? ddt_bias.data() : nullptr,
                        .da_log = trainable & 2 ? da_log.data() : nullptr,
                        .dd = trainable & 4 ? dd.data() : nullptr,
                        .dstate_in = states ? dstate_in.data() : nullptr});
  Result r{y.values(),   from(state_out), dx.values(),  db.values(), dc.values(),
           ddt.values(), from(ddt_bias),  from(da_log), from(dd),    from(dstate_in)};
  for (Values* v : {&r.ddt_bias, &r.da_log, &r.dd})
    for (double& g : *v) g -= 1;
  if (!states) r.state_out.clear(), r.dstate_in.clear();
  return r;
}

void expect_results_close(const Result& got, const Result& want, double relative, bool states = true) {
  const auto g = got.all(), w = want.all();
  for (size_t i = 0; i < g.size(); ++i)
    if (states || g[i].first.find("state") == std::string::npos)
      expect_close(*g[i].second, *w[i].second, relative, g[i].first);
}

// Sums of at most a few thousand products of size 1 in double.
constexpr double exactly = 1e-11;

TEST(Ssd, IsTheRecurrenceForEveryLength) {
  for (const int Q : {4, 8, 64})
    for (const int T : {0, 1, 2, Q - 1, Q, Q + 1, 3 * Q + 5})
      for (const bool states : {false, true}) {
        SCOPED_TRACE("Q " + std::to_string(Q) + " T " + std::to_string(T) + " states " +
                     std::to_string(states));
        const Problem q(4, 3, 2, 5, Q, {T}, states);
        expect_results_close(kernel<double>(q, states), reference<double>(q), exactly, states);
      }
}

TEST(Ssd, IsTheRecurrenceForEveryShape) {
  for (const int G : {1, 2, 4})
    for (const auto& [P, N] : {std::pair{1, 1}, {3, 20}, {16, 16}, {33, 7}, {80, 9}}) {
      SCOPED_TRACE("G " + std::to_string(G) + " P " + std::to_string(P) + " N " + std::to_string(N));
      const Problem q(4, P, G, N, 16, {5, 37, 0, 16}, true);
      expect_results_close(kernel<double>(q), reference<double>(q), exactly);
    }
}

TEST(Ssd, ManySequencesShareTheirHeads) {  // one task a group: B and C gradients without partial sums
  std::vector<int> lengths;
  for (int i = 0; i < 20; ++i) lengths.push_back(i * 7 % 23);
  const Problem q(6, 4, 2, 5, 8, lengths, true);
  expect_results_close(kernel<double>(q), reference<double>(q), exactly);
}

TEST(Ssd, GradientsAreCentralDifferences) {
  for (const bool states : {false, true})
    for (const bool clamp : {false, true}) {
      Problem q(4, 3, 2, 4, 4, {3, 0, 9, 1}, states);
      if (clamp) q.dt_min = 0.4, q.dt_max = 0.9;
      const Result r = kernel<double>(q, states);
      const auto loss = [&] {
        const Result f = reference<double>(q);
        return inner(f.y, q.dy) + (states ? inner(f.state_out, q.dstate_out) : 0);
      };
      const std::pair<Values*, const Values*> pairs[] = {{&q.x, &r.dx},
                                                         {&q.b, &r.db},
                                                         {&q.c, &r.dc},
                                                         {&q.dt, &r.ddt},
                                                         {&q.d, &r.dd},
                                                         {&q.a_log, &r.da_log},
                                                         {&q.dt_bias, &r.ddt_bias}};
      // Truncation h^2 f''' and cancellation eps |loss| / h are both of the order of 1e-9.
      for (const auto& [value, gradient] : pairs)
        expect_close(*gradient, central_differences(*value, loss), 2e-8, "");
      if (states) expect_close(r.dstate_in, central_differences(q.state_in, loss), 2e-8, "dstate_in");
      EXPECT_EQ(std::count(r.ddt.begin(), r.ddt.end(), 0.0) > 0, clamp);
    }
}

TEST(Ssd, PackedIsSeparate) {
  const std::vector<int> lengths = {7, 0, 150, 1, 64, 33};
  const Problem q(8, 16, 2, 16, 64, lengths, true);
  const Result packed = kernel<float>(q);
  const int64_t hp = q.H * q.P, gn = q.G * q.N, state = hp * q.N;
  Values sum[3] = {Values(q.H), Values(q.H), Values(q.H)};
  for (int s = 0; s < q.sequences(); ++s) {
    Problem one = q;
    const auto slice = [&](const Values& v, int64_t cols, int64_t begin, int64_t end) {
      return Values(v.begin() + begin * cols, v.begin() + end * cols);
    };
    const int64_t b = q.cu[s], e = q.cu[s + 1];
    one.cu = {0, static_cast<int32_t>(e - b)};
    one.x = slice(q.x, hp, b, e), one.dy = slice(q.dy, hp, b, e), one.dt = slice(q.dt, q.H, b, e);
    one.b = slice(q.b, gn, b, e), one.c = slice(q.c, gn, b, e);
    one.state_in = slice(q.state_in, state, s, s + 1), one.dstate_out = slice(q.dstate_out, state, s, s + 1);
    const Result r = kernel<float>(one);
    expect_same_bits(r.y, slice(packed.y, hp, b, e), "y");
    expect_same_bits(r.state_out, slice(packed.state_out, state, s, s + 1), "state_out");
    expect_same_bits(r.dx, slice(packed.dx, hp, b, e), "dx");
    expect_same_bits(r.ddt, slice(packed.ddt, q.H, b, e), "ddt");
    expect_same_bits(r.dstate_in, slice(packed.dstate_in, state, s, s + 1), "dstate_in");
    // The heads of a group may be summed in other blocks: equal to the rounding of a few sums.
    expect_close(r.db, slice(packed.db, gn, b, e), 16 * epsilon<float>, "db");
    expect_close(r.dc, slice(packed.dc, gn, b, e), 16 * epsilon<float>, "dc");
    const Values* parts[] = {&r.ddt_bias, &r.da_log, &r.dd};
    for (int i = 0; i < 3; ++i)
      for (int h = 0; h < q.H; ++h) sum[i][h] += (*parts[i])[h];
  }
  const Values* whole[] = {&packed.ddt_bias, &packed.da_log, &packed.dd};
  for (int i = 0; i < 3; ++i) expect_close(*whole[i], sum[i], 32 * epsilon<float>, "parameter sums");
}

TEST(Ssd, ChunkLengthDoesNotMatter) {
  Problem q(4, 8, 2, 8, 1, {130, 17}, true);
  const Result one = kernel<double>(q);
  for (const int Q : {3, 16, 50, 128, 256}) {
    q.Q = Q;
    expect_results_close(kernel<double>(q), one, exactly);
  }
}

TEST(Ssd, TwoHalvesAreTheWhole) {
  const int T = 150, half = 67;
  const Problem q(4, 8, 2, 8, 64, {T}, true);
  const Result whole = kernel<double>(q);
  const int64_t hp = q.H * q.P, gn = q.G * q.N;
  const auto part = [&](int b, int e) {
    Problem p = q;
    const auto slice = [&](const Values& v, int64_t cols) {
      return Values(v.begin() + b * cols, v.begin() + e * cols);
    };
    p.cu = {0, e - b};
    p.x = slice(q.x, hp), p.dy = slice(q.dy, hp), p.dt = slice(q.dt, q.H), p.b = slice(q.b, gn),
    p.c = slice(q.c, gn);
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
  expect_results_close({joined(a.y, b.y), b.state_out, joined(a.dx, b.dx), joined(a.db, b.db),
                        joined(a.dc, b.dc), joined(a.ddt, b.ddt), added(a.ddt_bias, b.ddt_bias),
                        added(a.da_log, b.da_log), added(a.dd, b.dd), a.dstate_in},
                       whole, exactly);
}

template <class T>
void expect_as_good_as_plain(Problem q) {
  for (Values* v : {&q.x, &q.b, &q.c, &q.dt, &q.dy}) *v = rounded<T>(*v);
  for (Values* v : {&q.dt_bias, &q.a_log, &q.d, &q.state_in, &q.dstate_out}) *v = rounded<float>(*v);
  const Result exact = reference<double>(q), got = kernel<T>(q);
  Result plain = reference<float>(q);
  for (Values* v : {&plain.y, &plain.dx, &plain.db, &plain.dc, &plain.ddt}) *v = rounded<T>(*v);
  const auto e = exact.all(), g = got.all(), p = plain.all();
  for (size_t i = 0; i < e.size(); ++i)
    expect_as_good_as(*p[i].second, *g[i].second, *e[i].second, epsilon<float>, e[i].first);
}

TEST(Ssd, FloatIsAsGoodAsThePlainRecurrence) {
  expect_as_good_as_plain<float>(Problem(4, 16, 2, 32, 64, {300, 12}));
  expect_as_good_as_plain<float>(Problem(2, 64, 1, 128, 128, {200}));
}
TEST(Ssd, Bf16IsAsGoodAsThePlainRecurrence) {
  expect_as_good_as_plain<bf16>(Problem(4, 16, 2, 32, 64, {300, 12}));
}

// Steps so large that s reaches -1e3 in a chunk: nothing overflows, and the decay gradient keeps the
// accuracy of the recurrence, which a reverse cumsum of differences loses.
TEST(Ssd, LargeStepsAreStable) {
  Problem q(4, 8, 2, 16, 64, {200}, true, 5, 25);
  const Result r = kernel<float>(q);
  for (const auto& [name, v] : r.all()) EXPECT_LT(max_abs(*v), 1e6) << name;
  expect_as_good_as_plain<float>(q);
  Problem mixed(4, 8, 2, 16, 64, {200}, true, -8, 12);
  expect_as_good_as_plain<float>(mixed);
}

TEST(Ssd, DoesNotDependOnThreads) {
  for (const auto& lengths :
       {std::vector<int>{700}, std::vector<int>{40, 300, 0, 7, 120, 90, 33, 200, 11, 64}}) {
    const Problem q(8, 16, 2, 16, 64, lengths, true);
    Result one, two;
    {
      Threads threads(1);
      one = kernel<float>(q);
    }
    {
      Threads threads(2);
      two = kernel<float>(q);
    }
    const auto a = one.all(), b = two.all();
    for (size_t i = 0; i < a.size(); ++i) expect_same_bits(*b[i].second, *a[i].second, a[i].first);
  }
}

TEST(Ssd, FrozenParametersChangeNothingElse) {
  const Problem q(4, 16, 2, 8, 8, {20, 0, 1});
  expect_frozen_changes_nothing_else({"ddt_bias", "da_log", "dd"},
                                     [&](unsigned t) { return kernel<float>(q, true, t); });
}

TEST(Ssd, RefusesBadShapes) {
  Ssd<float> op{};
  op.in.heads = 4, op.in.groups = 3, op.in.head_dim = op.in.state = op.in.chunk = 8;
  EXPECT_THROW(run(Cpu{}, op), std::invalid_argument);
  op.in.groups = 2, op.in.chunk = 0;
  EXPECT_THROW(run(Cpu{}, op), std::invalid_argument);
  op.in.chunk = 8;
  EXPECT_THROW(run(Cpu{}, op), std::invalid_argument);  // no workspace
}

}  // namespace
}  // namespace mimo
