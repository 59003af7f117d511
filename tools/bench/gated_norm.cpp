#include "kernels/gated_norm.h"

#include <benchmark/benchmark.h>

#include <random>
#include <vector>

namespace mimo {
namespace {

void gated_norm(benchmark::State& state) {
  const int64_t rows = state.range(0);
  const int cols = state.range(1), groups = state.range(2);
  const bool backward = state.range(3);
  std::mt19937 rng(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const auto fill = [&](int64_t size) {
    std::vector<float> x(size);
    for (float& v : x) v = uniform(rng);
    return x;
  };
  const auto y = fill(rows * cols), z = fill(rows * cols), w = fill(cols), dout = fill(rows * cols);
  std::vector<float> out(rows * cols), dz(rows * cols), r(rows * groups), dw(cols);
  const GatedNorm<float> f{rows, cols,     groups, y.data(),   cols, z.data(),
                           cols, w.data(), 1e-5f,  out.data(), cols, r.data()};
  const GatedNormBackward<float> g{rows, cols,      groups,   y.data(),    cols, z.data(),
                                   cols, w.data(),  r.data(), dout.data(), cols, out.data(),
                                   cols, dz.data(), cols,     dw.data()};
  std::vector<char> memory(workspace(Cpu{}, g));
  const Cpu cpu{{memory.data(), static_cast<int64_t>(memory.size())}};
  run(cpu, f);
  for (auto _ : state) backward ? run(cpu, g) : run(cpu, f);
  state.counters["FLOP"] = double(rows) * cols * (backward ? 20 : 8);
  state.counters["bytes"] = 4.0 * rows * cols * (backward ? 5 : 3);
}

BENCHMARK(gated_norm)
    ->ArgNames({"rows", "cols", "groups", "backward"})
    ->ArgsProduct({{6400}, {64}, {2}, {0, 1}})
    ->ArgsProduct({{4096}, {2048}, {8}, {0, 1}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace mimo
