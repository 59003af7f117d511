// Products of the sizes that models have: few rows, many rows, and those of small models on one thread.
#include "kernels/gemm.h"

#include <fmt/core.h>

#include <vector>

#include "tools/bench/bench.h"

namespace mimo::bench {
namespace {

struct Shape {
  int64_t m, n, k;
};

// y = x W^T: the forward of a linear layer.
template <class T>
void linear(benchmark::State& state, Shape s) {
  Array<T> x(s.m * s.k, T(1.f)), w(s.n * s.k, T(1.f)), y(s.m * s.n);
  const Gemm<T> op{false, true, s.m, s.n, s.k, 1, x.data(), s.k, w.data(), s.k, 0, y.data(), s.n, nullptr};
  Cpu cpu;
  Array<char> ws(workspace(cpu, op));
  cpu.ws = {ws.data(), static_cast<int64_t>(ws.size())};
  run(cpu, op);  // the first call of a kind generates its code
  for (auto _ : state) run(cpu, op);
  state.counters["FLOP"] = 2.0 * static_cast<double>(s.m * s.n * s.k);
  state.counters["bytes"] = static_cast<double>((x.size() + w.size() + y.size()) * sizeof(T));
}

// dW += dy^T x.
template <class T>
void weight_gradient(benchmark::State& state, Shape s) {
  Array<T> x(s.m * s.k, T(1.f)), dy(s.m * s.n, T(1.f));
  Array<float> dw(s.n * s.k);
  const GemmAccumulate<T> op{true, false, s.n, s.k, s.m, 1, dy.data(), s.n, x.data(), s.k, 1, dw.data(), s.k};
  Cpu cpu;
  Array<char> ws(workspace(cpu, op));
  cpu.ws = {ws.data(), static_cast<int64_t>(ws.size())};
  run(cpu, op);
  for (auto _ : state) run(cpu, op);
  state.counters["FLOP"] = 2.0 * static_cast<double>(s.m * s.n * s.k);
  state.counters["bytes"] =
      static_cast<double>((x.size() + dy.size()) * sizeof(T) + 2 * dw.size() * sizeof(float));
}

[[maybe_unused]] const bool registered = [] {
  for (const Shape s : {Shape{1, 64, 64},
                        {1, 256, 256},
                        {17, 32, 32},
                        {40, 64, 64},
                        {40, 256, 64},
                        {400, 32, 128},
                        {400, 256, 256},
                        {2048, 192, 768},
                        {2048, 768, 192},
                        {2048, 2048, 2048}}) {
    const std::string shape = fmt::format("{}x{}x{}", s.m, s.n, s.k);
    benchmark::RegisterBenchmark(("gemm/linear/f32/" + shape).c_str(), linear<float>, s)->UseRealTime();
    benchmark::RegisterBenchmark(("gemm/weight_gradient/f32/" + shape).c_str(), weight_gradient<float>, s)
        ->UseRealTime();
  }
  benchmark::RegisterBenchmark("gemm/linear/bf16/2048x768x192", linear<bf16>, Shape{2048, 768, 192})
      ->UseRealTime();
  return true;
}();

}  // namespace
}  // namespace mimo::bench
