// Mamba-1's scan at Mamba sizes: 1024 channels, 16 states.
#include "kernels/selective_scan.h"

#include <benchmark/benchmark.h>

#include <random>
#include <vector>

namespace mimo {
namespace {

void selective_scan(benchmark::State& state) {
  const int sequences = state.range(0), length = state.range(1), channels = state.range(2),
            n = state.range(3);
  const bool backward = state.range(4);
  const int64_t t = int64_t{sequences} * length;
  std::mt19937 rng(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const auto fill = [&](int64_t size) {
    std::vector<float> x(size);
    for (float& v : x) v = uniform(rng);
    return x;
  };
  std::vector<int32_t> cu(sequences + 1);
  for (int i = 0; i <= sequences; ++i) cu[i] = i * length;
  const auto u = fill(t * channels), delta = fill(t * channels), z = fill(t * channels),
             dy = fill(t * channels);
  const auto b = fill(t * n), c = fill(t * n), bias = fill(channels), a_log = fill(int64_t{channels} * n),
             d = fill(channels);
  std::vector<float> y(t * channels), ddelta(t * channels), dz(t * channels), db(t * n), dc(t * n),
      dbias(channels), da_log(int64_t{channels} * n), dd(channels);
  const SelectiveScan<float> f{
      sequences,    cu.data(), t,       channels, n,        u.data(), channels, delta.data(),
      channels,     b.data(),  n,       c.data(), n,        z.data(), channels, bias.data(),
      a_log.data(), d.data(),  nullptr, y.data(), channels, nullptr};
  const SelectiveScanBackward<float> g{
      sequences,     cu.data(),     t,         channels,  n,         u.data(), channels,  delta.data(),
      channels,      b.data(),      n,         c.data(),  n,         z.data(), channels,  bias.data(),
      a_log.data(),  d.data(),      nullptr,   dy.data(), channels,  nullptr,  y.data(),  channels,
      ddelta.data(), channels,      db.data(), n,         dc.data(), n,        dz.data(), channels,
      dbias.data(),  da_log.data(), dd.data(), nullptr};
  std::vector<char> memory(backward ? workspace(Cpu{}, g) : workspace(Cpu{}, f));
  const Cpu cpu{{memory.data(), static_cast<int64_t>(memory.size())}};
  for (auto _ : state) backward ? run(cpu, g) : run(cpu, f);
  // A channel and state: 6 FLOP and an exp forward; those again and 14 backward.
  state.counters["FLOP"] = double(t) * channels * n * (backward ? 20 : 6);
  state.counters["bytes"] = 4.0 * t * ((backward ? 7 : 4) * channels + (backward ? 4 : 2) * n);
}

BENCHMARK(selective_scan)
    ->ArgNames({"sequences", "length", "channels", "state", "backward"})
    ->ArgsProduct({{64}, {25}, {128}, {16}, {0, 1}})
    ->ArgsProduct({{2}, {2048}, {1024}, {16}, {0, 1}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace mimo
