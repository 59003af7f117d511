// The convolution reads x|B|C where it lies, in rows of the fused projection z|x|B|C|dt.
#include "kernels/causal_conv.h"

#include <benchmark/benchmark.h>

#include <random>
#include <vector>

namespace mimo {
namespace {

void causal_conv(benchmark::State& state) {
  const int sequences = state.range(0), length = state.range(1), channels = state.range(2), width = 4;
  const bool backward = state.range(3);
  const int64_t t = int64_t{sequences} * length, ld = 2 * int64_t{channels};
  std::mt19937 rng(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const auto fill = [&](int64_t size) {
    std::vector<float> x(size);
    for (float& v : x) v = uniform(rng);
    return x;
  };
  std::vector<int32_t> cu(sequences + 1);
  for (int i = 0; i <= sequences; ++i) cu[i] = i * length;
  const auto fused = fill(t * ld), dy = fill(t * channels), weight = fill(int64_t{channels} * width),
             bias = fill(channels);
  std::vector<float> y(t * channels), dfused(t * ld), dweight(weight.size()), dbias(channels);
  const CausalConv<float> f{
      sequences,   cu.data(), t,        channels, width,  fused.data() + channels, ld, weight.data(),
      bias.data(), nullptr,   y.data(), channels, nullptr};
  const CausalConvBackward<float> g{
      sequences,    cu.data(), t,         channels, width,   fused.data() + channels,  ld, weight.data(),
      bias.data(),  nullptr,   dy.data(), channels, nullptr, dfused.data() + channels, ld, dweight.data(),
      dbias.data(), nullptr};
  std::vector<char> memory(workspace(Cpu{}, g));
  const Cpu cpu{{memory.data(), static_cast<int64_t>(memory.size())}};
  for (auto _ : state) backward ? run(cpu, g) : run(cpu, f);
  state.counters["FLOP"] = double(t) * channels * width * (backward ? 6 : 2);
  state.counters["bytes"] = 4.0 * t * channels * (backward ? 3 : 2);
}

BENCHMARK(causal_conv)
    ->ArgNames({"sequences", "length", "channels", "backward"})
    ->ArgsProduct({{256}, {25}, {128}, {0, 1}})
    ->ArgsProduct({{2}, {2048}, {3072}, {0, 1}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace mimo
