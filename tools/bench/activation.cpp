#include "kernels/activation.h"

#include <fmt/format.h>

#include "tools/bench/bench.h"
#include "tools/bench/torch.h"

namespace mimo::bench {
namespace {

// An MLP's inner activations.
int64_t rows() { return large() ? 16384 : 2048; }
int64_t cols() { return large() ? 20480 : 3072; }

// Work of a kind: about 20 operations for an exponential or erf and its surroundings.
double flop(ActivationKind kind, int64_t n) {
  return (kind == ActivationKind::relu2 ? 2.0 : 20.0) * double(n);
}

template <class T>
void activation(benchmark::State& state) {
  const auto kind = static_cast<ActivationKind>(state.range(0));
  const int64_t tokens = rows(), width = cols(), n = tokens * width;
  const auto x = operand<T>(n);
  Array<T> y(n);
  measure(state,
          Activation<T>{.in = {.kind = kind, .rows = tokens, .cols = width, .x = {x.data(), width}},
                        .y = {y.data(), width}},
          flop(kind, n), 2.0 * n * sizeof(T));
}

template <class T>
void activation_backward(benchmark::State& state) {
  const auto kind = static_cast<ActivationKind>(state.range(0));
  const int64_t tokens = rows(), width = cols(), n = tokens * width;
  const auto x = operand<T>(n), dy = operand<T>(n);
  Array<T> dx(n);
  measure(state,
          ActivationBackward<T>{.in = {.kind = kind, .rows = tokens, .cols = width, .x = {x.data(), width}},
                                .dy = {dy.data(), width},
                                .dx = {dx.data(), width}},
          flop(kind, n), 3.0 * n * sizeof(T));
}

template <class T>
void swiglu(benchmark::State& state) {
  const int64_t tokens = rows(), width = cols(), n = tokens * width;
  const auto x = operand<T>(2 * n);
  Array<T> y(n);
  measure(
      state,
      SwiGlu<T>{.in = {.rows = tokens, .cols = width, .x = {x.data(), 2 * width}}, .y = {y.data(), width}},
      21.0 * n, 3.0 * n * sizeof(T));
  compare_with_torch(
      state, "torch compiled",
      fmt::format("swiglu({}, {}, {}, {})", python(false), tokens, width, name_of(dtype_of<T>())));
}

template <class T>
void swiglu_backward(benchmark::State& state) {
  const int64_t tokens = rows(), width = cols(), n = tokens * width;
  const auto x = operand<T>(2 * n), dy = operand<T>(n);
  Array<T> dx(2 * n);
  measure(state,
          SwiGluBackward<T>{.in = {.rows = tokens, .cols = width, .x = {x.data(), 2 * width}},
                            .dy = {dy.data(), width},
                            .dx = {dx.data(), 2 * width}},
          27.0 * n, 5.0 * n * sizeof(T));
  compare_with_torch(
      state, "torch compiled",
      fmt::format("swiglu({}, {}, {}, {})", python(true), tokens, width, name_of(dtype_of<T>())));
}

void kinds(benchmark::internal::Benchmark* b) {  // 0 relu2, 1 gelu_erf, 2 gelu_tanh, 3 quick_gelu, 4 silu
  b->ArgName("kind")->DenseRange(0, 4);
}
void once(benchmark::internal::Benchmark*) {}

MIMO_BENCHMARK(activation, kinds);
MIMO_BENCHMARK(activation_backward, kinds);
MIMO_BENCHMARK(swiglu, once);
MIMO_BENCHMARK(swiglu_backward, once);

}  // namespace
}  // namespace mimo::bench
