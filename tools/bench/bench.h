// What the benchmarks of the kernels share: operands, scratch, and the two counters that the report reads.
#pragma once
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels/kernel.h"

namespace mimo::bench {

template <class T>
std::vector<T> operand(int64_t n) {
  std::mt19937 engine(1);
  std::vector<T> v(n);
  for (T& x : v) x = T(static_cast<acc_t<T>>(double(engine()) * 0x1p-31 - 1));
  return v;
}

// Times run(op). flop and bytes are of one call: what the formula needs, each operand read or written once.
template <class Op>
void measure(benchmark::State& state, const Op& op, double flop, double bytes) {
  std::vector<uint64_t> scratch((workspace(Cpu{}, op) + 7) / 8);
  const Cpu cpu{{scratch.data(), static_cast<int64_t>(scratch.size() * 8)}};
  for (auto _ : state) {
    run(cpu, op);
    benchmark::ClobberMemory();
  }
  state.counters["FLOP"] = flop;
  state.counters["bytes"] = bytes;
}

// Every benchmark is a template over the storage type, timed by the clock on the wall (kernels use threads).
#define MIMO_BENCHMARK(name, args)                                                            \
  BENCHMARK_TEMPLATE(name, float)->Apply(args)->UseRealTime()->Unit(benchmark::kMicrosecond); \
  BENCHMARK_TEMPLATE(name, bf16)->Apply(args)->UseRealTime()->Unit(benchmark::kMicrosecond)

inline void rows_by_cols(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "cols"})->Args({64, 128})->Args({2048, 768})->Args({8192, 1280});
}

}  // namespace mimo::bench
