// What the benchmarks of the kernels share: operands, scratch, and the two counters that the report reads.
#pragma once
#include <benchmark/benchmark.h>

#include <new>
#include <random>
#include <vector>

#include "kernels/kernel.h"

namespace mimo::bench {

// Arrays on 64-byte boundaries, as tensors are.
template <class T>
struct CacheLines {
  using value_type = T;
  CacheLines() = default;
  template <class U>
  CacheLines(const CacheLines<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* p, size_t) { ::operator delete (p, std::align_val_t{64}); }
  bool operator==(const CacheLines&) const { return true; }
};
template <class T>
using Array = std::vector<T, CacheLines<T>>;

template <class T>
Array<T> operand(int64_t n) {
  std::mt19937 engine(1);
  Array<T> v(n);
  for (T& x : v) x = T(static_cast<acc_t<T>>(double(engine()) * 0x1p-31 - 1));
  return v;
}

// Times run(op). flop and bytes are of one call: what the formula needs, each operand read or written once.
template <class Op>
void measure(benchmark::State& state, const Op& op, double flop, double bytes) {
  Array<uint64_t> scratch((workspace(Cpu{}, op) + 7) / 8);
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
