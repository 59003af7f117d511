#include "tools/bench/limits.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/threads.h"
#include "kernels/gemm.h"
#include "tensor/cuda.h"
#include "tools/bench/bench.h"

namespace mimo::bench {
namespace {

template <class F>
double best_seconds(int repeats, F f) {
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

// The fastest of many short trials: what other processes take of the machine is not its limit.

// Bytes a second of f(y, x, n), a stream over two arrays that moves `streams` n bytes.
template <class F>
double stream_rate(int64_t moved, int streams, F f) {
  const int64_t size = moved / 2, piece = std::min<int64_t>(size / thread_count(), 1 << 20);
  const int64_t group = piece * thread_count();  // timed at once; repeated where it is short
  const int64_t groups = size / group, repeats = std::max<int64_t>(1, (1 << 20) / group);
  const std::vector<float> from(size / 4, 1);
  std::vector<float> to(size / 4);
  double best = 1e30;
  for (int64_t g = 0, end = std::max<int64_t>(200, groups); g < end; ++g) {
    const int64_t begin = g % groups * group;
    best = std::min(best, best_seconds(1, [&] {
                      parallel_for(thread_count(), group, [&](int64_t i) {
                        const int64_t at = (begin + i * piece) / 4;
                        for (int64_t r = 0; r < repeats; ++r) f(to.data() + at, from.data() + at, piece / 4);
                      });
                    }));
  }
  return static_cast<double>(streams) * static_cast<double>(group * repeats) / best;
}

// Multiply-adds a second of all threads on what lies in registers: as many sums at once as hide the latency
// of one.
double multiply_add_rate() {
  constexpr int kSums = 12, kRounds = 20000;
  const double seconds = best_seconds(1000, [] {
    parallel_for(thread_count(), thread_count() * kThreadBytes, [](int64_t) {
      Vec<float> sum[kSums] = {}, factor = Vec<float>{} + 0.5f, step = Vec<float>{} + 1;
      benchmark::DoNotOptimize(factor), benchmark::DoNotOptimize(step);
      for (Vec<float>& x : sum) benchmark::DoNotOptimize(x);
      for (int round = 0; round < kRounds; ++round)
#pragma GCC unroll 12
        for (Vec<float>& x : sum) x = x * factor + step;
      for (Vec<float>& x : sum) benchmark::DoNotOptimize(x);
    });
  });
  return double{kSums} * kRounds * lanes<float> * thread_count() / seconds;
}

Limits limits_of_cpu() {
  Limits limits;
  const double rate = 2 * multiply_add_rate();
  limits.flop_per_second[0] = limits.flop_per_second[1] = rate;  // bf16 computes in f32
  for (int64_t moved = Limits::kSmallest; moved <= Limits::kLargest; moved *= 4) {
    const double copy =
        stream_rate(moved, 2, [](float* y, const float* x, int64_t n) { std::memcpy(y, x, n * 4); });
    const double add = stream_rate(moved, 3, [](float* y, const float* x, int64_t n) {
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) y[i] += x[i];
    });
    limits.stream.push_back(std::max(copy, add));
  }
  return limits;
}

// The fastest of ten trials of so many calls, by events.
template <class F>
double best_seconds_on_gpu(int calls, F f) {
  double best = 1e30;
  f();
  for (int i = 0; i < 10; ++i) {
    const Event begin(current_stream(), true);
    for (int c = 0; c < calls; ++c) f();
    const Event end(current_stream(), true);
    end.synchronize();
    best = std::min(best, end.since(begin) / calls);
  }
  return best;
}

template <class T>
double product_rate(int64_t size) {
  const auto a = operand<T>(size * size), b = operand<T>(size * size);
  Array<T> c(size * size);
  const Gemm<T> op{.trans_b = true,
                   .m = size,
                   .n = size,
                   .k = size,
                   .a = {a.data(), size},
                   .b = {b.data(), size},
                   .c = {c.data(), size}};
  const std::function<void()> call = call_of(op);
  const double seconds = best_seconds_on_gpu(4, call);
  return 2.0 * static_cast<double>(size * size * size) / seconds;
}

Limits limits_of_gpu() {
  Limits limits;
  limits.flop_per_second[0] = product_rate<float>(large() ? 8192 : 256);
  limits.flop_per_second[1] = product_rate<bf16>(large() ? 8192 : 256);
  for (int64_t moved = Limits::kSmallest; moved <= (large() ? int64_t{4} << 30 : 64 << 20); moved *= 4) {
    Array<char> from(moved / 2), to(moved / 2);
    const int calls = static_cast<int>(std::clamp<int64_t>((int64_t{1} << 28) / moved, 2, 256));
    limits.stream.push_back(static_cast<double>(moved) / best_seconds_on_gpu(calls, [&] {
                              cuda::copy(to.data(), from.data(), moved / 2, current_stream().handle());
                            }));
  }
  return limits;
}

}  // namespace

Limits measure_limits() { return on_gpu() ? limits_of_gpu() : limits_of_cpu(); }

}  // namespace mimo::bench
