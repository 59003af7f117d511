// Attention, forward and backward. FLOP counts visible pairs only: 4 dim a pair and head, 10 for the
// backward. The forward's baseline is the three-step form over the whole square: scores by sgemm, a
// vectorised masked softmax, sgemm with the values, head by head; timed in turns with the kernel.
#include "kernels/attention.h"

#include <dnnl.h>
#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/simd.h"
#include "tools/bench/bench.h"

namespace mimo::bench {
namespace {

struct Shape {
  int sequences, length, heads, kv_heads, dim;
  bool causal;
};

template <class T>
struct Problem {
  Shape s;
  int64_t tokens, q_cols, kv_cols, ld;
  std::vector<int32_t> cu;
  Array<T> qkv, grad, o, d_o;
  Array<acc_t<T>> lse;
  Array<char> ws;
  float scale;

  explicit Problem(Shape shape)
      : s(shape),
        tokens(static_cast<int64_t>(s.sequences) * s.length),
        q_cols(s.heads * s.dim),
        kv_cols(s.kv_heads * s.dim),
        ld(q_cols + 2 * kv_cols),
        qkv(tokens * ld),
        grad(tokens * ld),
        o(tokens * q_cols),
        d_o(tokens * q_cols),
        lse(tokens * s.heads),
        scale(1 / std::sqrt(static_cast<float>(s.dim))) {
    for (int i = 0; i <= s.sequences; ++i) cu.push_back(i * s.length);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (auto* x : {&qkv, &d_o})
      for (T& y : *x) y = T(normal(random));
  }
  const T* q() const { return qkv.data(); }
  const T* k() const { return q() + q_cols; }
  const T* v() const { return k() + kv_cols; }
  Attention<T> forward() {
    return {s.sequences, cu.data(),  cu.data(), nullptr,  nullptr,  tokens, tokens,
            s.heads,     s.kv_heads, s.dim,     s.causal, scale,    q(),    ld,
            k(),         ld,         v(),       ld,       o.data(), q_cols, lse.data()};
  }
  AttentionBackward<T> backward() {
    T *dq = grad.data(), *dk = dq + q_cols, *dv = dk + kv_cols;
    return {s.sequences, cu.data(), cu.data(),  nullptr, nullptr, tokens, tokens, s.heads, s.kv_heads, s.dim,
            s.causal,    scale,     q(),        ld,      k(),     ld,     v(),    ld,      o.data(),   q_cols,
            lse.data(),  nullptr,   d_o.data(), q_cols,  dq,      ld,     dk,     ld,      dv,         ld};
  }
  template <class Op>
  Cpu context(const Op& op) {
    ws.resize(workspace(Cpu{}, op));
    return Cpu{{ws.data(), static_cast<int64_t>(ws.size())}};
  }
  void count(benchmark::State& state, double flop_per_pair, int64_t elements) const {
    const double length = s.length, pairs = s.causal ? length * (length + 1) / 2 : length * length;
    state.counters["FLOP"] = flop_per_pair * s.dim * pairs * s.sequences * s.heads;
    state.counters["bytes"] = static_cast<double>(elements) * sizeof(T);
  }
};

void three_steps(const Problem<float>& p, float* o, Array<float>& scores) {
  const int64_t n = p.s.length, dim = p.s.dim;
  scores.resize(n * n);
  for (int s = 0; s < p.s.sequences; ++s)
    for (int h = 0; h < p.s.heads; ++h) {
      const int64_t row = p.cu[s] * p.ld, kv = h / (p.s.heads / p.s.kv_heads) * dim;
      float* x = scores.data();
      dnnl_sgemm('N', 'T', n, n, dim, p.scale, p.q() + row + h * dim, p.ld, p.k() + row + kv, p.ld, 0, x, n);
#pragma omp parallel for schedule(static) if (n * n > 1 << 14)
      for (int64_t i = 0; i < n; ++i) {
        float *y = x + i * n, max = -std::numeric_limits<float>::infinity(), sum = 0;
        const int64_t visible = p.s.causal ? i + 1 : n;
#pragma omp simd reduction(max : max)
        for (int64_t j = 0; j < visible; ++j) max = y[j] > max ? y[j] : max;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < visible; ++j) sum += y[j] = fast_exp(y[j] - max);
        const float norm = 1 / sum;
#pragma omp simd
        for (int64_t j = 0; j < visible; ++j) y[j] *= norm;
        std::fill(y + visible, y + n, 0.f);
      }
      dnnl_sgemm('N', 'N', n, dim, n, 1, x, n, p.v() + row + kv, p.ld, 0, o + p.cu[s] * p.q_cols + h * dim,
                 p.q_cols);
    }
}

template <class T>
void forward(benchmark::State& state, Shape s) {
  Problem<T> p(s);
  const Attention<T> op = p.forward();
  const Cpu cpu = p.context(op);
  Array<T> o(p.o.size());
  Array<float> scores;
  double baseline = 0;
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
  run(cpu, op);
  if constexpr (std::is_same_v<T, float>) three_steps(p, o.data(), scores);
  for (auto _ : state) {
    const auto start = now();
    run(cpu, op);
    const auto middle = now();
    state.SetIterationTime(seconds(start, middle));
    if constexpr (std::is_same_v<T, float>) {
      three_steps(p, o.data(), scores);
      baseline += seconds(middle, now());
    }
  }
  if (baseline > 0) state.counters["baseline"] = baseline / static_cast<double>(state.iterations());
  p.count(state, 4, p.tokens * (p.ld + p.q_cols));
}

template <class T>
void backward(benchmark::State& state, Shape s) {
  Problem<T> p(s);
  const Attention<T> first = p.forward();
  run(p.context(first), first);
  const AttentionBackward<T> op = p.backward();
  const Cpu cpu = p.context(op);
  run(cpu, op);
  for (auto _ : state) run(cpu, op);
  p.count(state, 10, p.tokens * (2 * p.ld + 2 * p.q_cols));
}

// Two partial results over 8 heads of 64; an exponential a head and token costs little beside the bytes.
template <class T>
void attention_merge(benchmark::State& state) {
  const int64_t tokens = state.range(0), heads = 8, dim = 64, n = tokens * heads * dim;
  Array<T> o_a = operand<T>(n);
  const auto o_b = operand<T>(n);
  Array<acc_t<T>> lse_a(tokens * heads);
  const Array<acc_t<T>> lse_b(tokens * heads);
  measure(state,
          AttentionMerge<T>{tokens, static_cast<int>(heads), static_cast<int>(dim), o_a.data(), heads * dim,
                            lse_a.data(), o_b.data(), heads * dim, lse_b.data()},
          3.0 * n, 3.0 * n * sizeof(T) + 3.0 * tokens * heads * sizeof(acc_t<T>));
}
void lengths(benchmark::internal::Benchmark* b) { b->ArgName("tokens")->Arg(400)->Arg(16384); }
MIMO_BENCHMARK(attention_merge, lengths);

[[maybe_unused]] const bool registered = [] {
  for (const Shape s : {Shape{1, 1024, 8, 8, 64, true},
                        {1, 1024, 8, 8, 64, false},
                        {1, 1024, 8, 2, 128, true},
                        {1, 1024, 8, 8, 80, false},
                        {1, 1024, 4, 4, 256, true},
                        {4, 256, 8, 8, 64, false},
                        {300, 32, 4, 4, 32, true},
                        {300, 32, 4, 4, 32, false},
                        {300, 17, 4, 4, 16, true}}) {
    const std::string shape = fmt::format("{}/{}x{}/heads{}:{}/dim{}", s.causal ? "causal" : "full",
                                          s.sequences, s.length, s.heads, s.kv_heads, s.dim);
    benchmark::RegisterBenchmark(("attention/forward/f32/" + shape).c_str(), forward<float>, s)
        ->UseManualTime();
    benchmark::RegisterBenchmark(("attention/backward/f32/" + shape).c_str(), backward<float>, s)
        ->UseRealTime();
  }
  const Shape s{1, 1024, 8, 8, 64, true};
  benchmark::RegisterBenchmark("attention/forward/bf16/causal/1x1024/heads8:8/dim64", forward<bf16>, s)
      ->UseManualTime();
  benchmark::RegisterBenchmark("attention/backward/bf16/causal/1x1024/heads8:8/dim64", backward<bf16>, s)
      ->UseRealTime();
  return true;
}();

}  // namespace
}  // namespace mimo::bench
