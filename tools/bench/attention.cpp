// Attention, forward and backward. FLOP counts visible pairs only: 4 dim a pair and head, 10 for the
// backward. The forward's baseline is the three-step form over the whole square: scores by a product, a
// vectorised masked softmax, a product with the values, head by head. On a GPU it
// is torch's scaled_dot_product_attention, with its own kernels (flash) and with cuDNN's.
#include "kernels/attention.h"

#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/threads.h"
#include "kernels/gemm.h"
#include "tools/bench/bench.h"
#include "tools/bench/torch.h"

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
  Array<int32_t> cu;
  Array<T> qkv, grad, o, d_o;
  Array<acc_t<T>> lse;
  float scale;

  explicit Problem(Shape shape)
      : s(shape),
        tokens(static_cast<int64_t>(s.sequences) * s.length),
        q_cols(s.heads * s.dim),
        kv_cols(s.kv_heads * s.dim),
        ld(q_cols + 2 * kv_cols),
        cu(packed(s.sequences, s.length)),
        qkv(operand<T>(tokens * ld)),
        grad(tokens * ld),
        o(tokens * q_cols),
        d_o(operand<T>(tokens * q_cols)),
        lse(tokens * s.heads),
        scale(1 / std::sqrt(static_cast<float>(s.dim))) {}
  Rows<const T> q() const { return {qkv.data(), ld}; }
  Rows<const T> k() const { return q().from_column(q_cols); }
  Rows<const T> v() const { return k().from_column(kv_cols); }
  AttentionInputs<T> inputs() const {
    return {.sequences = s.sequences,
            .cu_q = cu.data(),
            .cu_k = cu.data(),
            .tokens_q = tokens,
            .tokens_k = tokens,
            .heads = s.heads,
            .kv_heads = s.kv_heads,
            .head_dim = s.dim,
            .causal = s.causal,
            .scale = scale,
            .q = q(),
            .k = k(),
            .v = v()};
  }
  Attention<T> forward() { return {.in = inputs(), .o = {o.data(), q_cols}, .lse = lse.data()}; }
  AttentionBackward<T> backward() {
    const Rows<T> dq{grad.data(), ld}, dk = dq.from_column(q_cols), dv = dk.from_column(kv_cols);
    return {.in = inputs(),
            .o = {o.data(), q_cols},
            .lse = lse.data(),
            .d_o = {d_o.data(), q_cols},
            .dq = dq,
            .dk = dk,
            .dv = dv};
  }
  template <class Op>
  void measure(benchmark::State& state, const Op& op, double flop_per_pair, int64_t elements) const {
    const double length = s.length, pairs = s.causal ? length * (length + 1) / 2 : length * length;
    bench::measure(state, op, flop_per_pair * s.dim * pairs * s.sequences * s.heads,
                   static_cast<double>(elements) * sizeof(T));
  }
  void compare(benchmark::State& state, bool backward) const {
    for (const auto& [name, backend] :
         {std::pair{"torch flash", "FLASH_ATTENTION"}, {"cuDNN", "CUDNN_ATTENTION"}})
      compare_with_torch(
          state, name,
          fmt::format("sdpa('{}', {}, {}, {}, {}, {}, {}, {}, {})", backend, python(backward), s.sequences,
                      s.length, s.heads, s.kv_heads, s.dim, python(s.causal), name_of(dtype_of<T>())));
  }
};

void three_steps(const Problem<float>& p, float* o, float* x, std::vector<char>& scratch) {
  const int64_t n = p.s.length, dim = p.s.dim;
  const auto multiply = [&](const Gemm<float>& op) {
    scratch.resize(std::max<size_t>(scratch.size(), workspace(Cpu{}, op)));
    run(Cpu{{scratch.data(), static_cast<int64_t>(scratch.size())}}, op);
  };
  for (int s = 0; s < p.s.sequences; ++s)
    for (int h = 0; h < p.s.heads; ++h) {
      const int64_t first = s * n, kv = h / (p.s.heads / p.s.kv_heads) * dim;
      multiply({.trans_b = true,
                .m = n,
                .n = n,
                .k = dim,
                .alpha = p.scale,
                .a = {p.q()[first] + h * dim, p.ld},
                .b = {p.k()[first] + kv, p.ld},
                .c = {x, n}});
      parallel_for(n, 8 * n * n, [&](int64_t i) {
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
      });
      multiply({.m = n,
                .n = dim,
                .k = n,
                .a = {x, n},
                .b = {p.v()[first] + kv, p.ld},
                .c = {o + first * p.q_cols + h * dim, p.q_cols}});
    }
}

// Of the whole square in three steps, on the CPU.
double seconds_of_three_steps(const Problem<float>& p) {
  Array<float> o(p.o.size()), scores(int64_t{p.s.length} * p.s.length);
  std::vector<char> scratch;
  double best = 1e30;
  for (int i = 0; i < 4; ++i) {
    const auto start = std::chrono::steady_clock::now();
    three_steps(p, o.data(), scores.data(), scratch);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

template <class T>
void forward(benchmark::State& state, Shape s) {
  Problem<T> p(s);
  p.measure(state, p.forward(), 4, p.tokens * (p.ld + p.q_cols));
  p.compare(state, false);
  if constexpr (std::is_same_v<T, float>)
    if (!on_gpu()) state.counters["baseline"] = seconds_of_three_steps(p);
}

template <class T>
void backward(benchmark::State& state, Shape s) {
  Problem<T> p(s);
  call_of(p.forward())();
  p.measure(state, p.backward(), 10, p.tokens * (2 * p.ld + 2 * p.q_cols));
  p.compare(state, true);
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
          AttentionMerge<T>{.tokens = tokens,
                            .heads = static_cast<int>(heads),
                            .head_dim = static_cast<int>(dim),
                            .o_a = {o_a.data(), heads * dim},
                            .lse_a = lse_a.data(),
                            .o_b = {o_b.data(), heads * dim},
                            .lse_b = lse_b.data()},
          3.0 * n, 3.0 * n * sizeof(T) + 3.0 * tokens * heads * sizeof(acc_t<T>));
}
void lengths(benchmark::internal::Benchmark* b) {
  b->ArgName("tokens");
  if (large())
    b->Arg(32768);
  else
    b->Arg(400)->Arg(16384);
}
MIMO_BENCHMARK(attention_merge, lengths);

template <class T>
void add_shape(Shape s) {
  const std::string shape =
      fmt::format("{}/{}/{}x{}/heads{}:{}/dim{}", name_of(dtype_of<T>()), s.causal ? "causal" : "full",
                  s.sequences, s.length, s.heads, s.kv_heads, s.dim);
  add_case("attention/forward/" + shape, [s](benchmark::State& state) { forward<T>(state, s); });
  add_case("attention/backward/" + shape, [s](benchmark::State& state) { backward<T>(state, s); });
}

[[maybe_unused]] const bool registered = [] {
  later([] {
    if (large()) {
      // Nemotron-H 8B and 12B, RADIO-H on images of 512 x 512 pixels, CLIP-L on those of 336 x 336, head 256.
      for (const Shape s : {Shape{1, 4096, 32, 8, 128, true},
                            {4, 8192, 32, 8, 128, true},
                            {1, 32768, 32, 8, 128, true},
                            {4, 4096, 40, 8, 128, true},
                            {16, 1032, 16, 16, 80, false},
                            {32, 577, 16, 16, 64, false},
                            {2, 4096, 16, 4, 256, true}})
        add_shape<bf16>(s);
      add_shape<float>({1, 4096, 32, 8, 128, true});
      return;
    }
    for (const Shape s : {Shape{1, 1024, 8, 8, 64, true},
                          {1, 1024, 8, 8, 64, false},
                          {1, 1024, 8, 2, 128, true},
                          {1, 1024, 8, 8, 80, false},
                          {1, 1024, 4, 4, 256, true},
                          {4, 256, 8, 8, 64, false},
                          {300, 32, 4, 4, 32, true},
                          {300, 32, 4, 4, 32, false},
                          {300, 17, 4, 4, 16, true}})
      add_shape<float>(s);
    add_shape<bf16>({1, 1024, 8, 8, 64, true});
  });
  return true;
}();

}  // namespace
}  // namespace mimo::bench
