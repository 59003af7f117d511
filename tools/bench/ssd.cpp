// SSD at the sizes of a small model's short samples and of a large model's long ones.
#include "kernels/ssd.h"

#include <benchmark/benchmark.h>

#include <limits>
#include <random>
#include <vector>

namespace mimo {
namespace {

// Arguments: sequences, their length, heads, head_dim, groups, state, chunk.
struct Case {
  int sequences, length, heads, head_dim, groups, state, chunk;
  explicit Case(const benchmark::State& s)
      : sequences(s.range(0)),
        length(s.range(1)),
        heads(s.range(2)),
        head_dim(s.range(3)),
        groups(s.range(4)),
        state(s.range(5)),
        chunk(s.range(6)) {}
  int64_t tokens() const { return int64_t{sequences} * length; }
  // Products of the chunk form at the given chunk length, 2 FLOP each; a triangle counts half.
  double flop(bool backward) const {
    const double q = std::min(chunk, length), p = head_dim, n = state;
    const double passes = length > chunk ? 1 : 0;  // states are passed
    const double head = backward ? q * p + passes * 5 * p * n : q * p / 2 + passes * 2 * p * n;
    const double group = (backward ? 3 : 1) * q * n / 2;
    return 2 * tokens() * (heads * head + groups * group);
  }
  double bytes(bool backward) const {
    const double row = heads * head_dim, group = groups * state;
    return 4.0 * tokens() * (backward ? 3 * row + 4 * group + 2 * heads : 2 * row + 2 * group + heads);
  }
};

void ssd(benchmark::State& state) {
  const Case k(state);
  const bool backward = state.range(7);
  std::mt19937 rng(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const auto fill = [&](int64_t n) {
    std::vector<float> x(n);
    for (float& v : x) v = uniform(rng);
    return x;
  };
  const int64_t hp = k.heads * k.head_dim, gn = k.groups * k.state, t = k.tokens();
  std::vector<int32_t> cu(k.sequences + 1);
  for (int i = 0; i <= k.sequences; ++i) cu[i] = i * k.length;
  const auto x = fill(t * hp), b = fill(t * gn), c = fill(t * gn), dt = fill(t * k.heads), dy = fill(t * hp);
  const auto bias = fill(k.heads), a_log = fill(k.heads), d = fill(k.heads);
  std::vector<float> y(t * hp), db(t * gn), dc(t * gn), ddt(t * k.heads), dh(3 * k.heads);
  const float inf = std::numeric_limits<float>::infinity();
  const Ssd<float> f{k.sequences, cu.data(), t,           k.heads,      k.head_dim, k.groups, k.state,
                     k.chunk,     x.data(),  hp,          b.data(),     gn,         c.data(), gn,
                     dt.data(),   k.heads,   bias.data(), a_log.data(), d.data(),   0,        inf,
                     nullptr,     y.data(),  hp,          nullptr};
  const SsdBackward<float> g{k.sequences,
                             cu.data(),
                             t,
                             k.heads,
                             k.head_dim,
                             k.groups,
                             k.state,
                             k.chunk,
                             x.data(),
                             hp,
                             b.data(),
                             gn,
                             c.data(),
                             gn,
                             dt.data(),
                             k.heads,
                             bias.data(),
                             a_log.data(),
                             d.data(),
                             0,
                             inf,
                             nullptr,
                             dy.data(),
                             hp,
                             nullptr,
                             y.data(),
                             hp,
                             db.data(),
                             gn,
                             dc.data(),
                             gn,
                             ddt.data(),
                             k.heads,
                             dh.data(),
                             dh.data() + k.heads,
                             dh.data() + 2 * k.heads,
                             nullptr};
  std::vector<char> memory(std::max(workspace(Cpu{}, f), workspace(Cpu{}, g)));
  const Cpu cpu{{memory.data(), static_cast<int64_t>(memory.size())}};
  for (auto _ : state) backward ? run(cpu, g) : run(cpu, f);
  state.counters["FLOP"] = k.flop(backward);
  state.counters["bytes"] = k.bytes(backward);
}

BENCHMARK(ssd)
    ->ArgNames({"sequences", "length", "heads", "head_dim", "groups", "state", "chunk", "backward"})
    ->ArgsProduct({{256}, {25}, {4}, {16}, {2}, {16}, {64}, {0, 1}})
    ->ArgsProduct({{256}, {40}, {8}, {32}, {4}, {32}, {64}, {0, 1}})
    ->ArgsProduct({{1}, {4096}, {8}, {64}, {1}, {128}, {64}, {0, 1}})
    ->ArgsProduct({{4}, {2048}, {32}, {64}, {8}, {128}, {64}, {0, 1}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace mimo
