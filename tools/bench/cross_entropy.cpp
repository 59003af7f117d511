#include "kernels/cross_entropy.h"

#include "tools/bench/bench.h"

namespace mimo::bench {
namespace {

template <class T>
struct Operands {
  int64_t rows, cols;
  Array<T> logits;
  std::vector<int32_t> labels, arg;
  Array<acc_t<T>> max, sum, target, loss, dloss;

  explicit Operands(const benchmark::State& state)
      : rows(state.range(0)),
        cols(state.range(1)),
        logits(operand<T>(rows * cols)),
        labels(rows),
        arg(rows),
        max(rows, 1),
        sum(rows, 1),
        target(rows),
        loss(rows),
        dloss(1, 1) {
    for (int64_t i = 0; i < rows; ++i) labels[i] = static_cast<int32_t>(i * 7919 % cols);
  }
};

template <class T>
void cross_entropy_max(benchmark::State& state) {
  Operands<T> o(state);
  const double n = double(o.rows * o.cols);
  measure(state, CrossEntropyMax<T>{o.rows, 0, o.cols, o.logits.data(), o.cols, o.max.data(), o.arg.data()},
          n, n * sizeof(T));
}

template <class T>
void cross_entropy_sum(benchmark::State& state) {
  Operands<T> o(state);
  const double n = double(o.rows * o.cols);
  measure(state,
          CrossEntropySum<T>{o.rows, 0, o.cols, o.logits.data(), o.cols, o.labels.data(), o.max.data(),
                             o.sum.data(), o.target.data()},
          20 * n, n * sizeof(T));
}

template <class T>
void cross_entropy_loss(benchmark::State& state) {
  Operands<T> o(state);
  double result = 0;
  measure(state,
          CrossEntropyLoss<T>{o.rows, o.labels.data(), o.sum.data(), o.target.data(), &result, o.loss.data()},
          20.0 * o.rows, double(o.rows) * (4 + 2 * sizeof(acc_t<T>)));
}

// In place: after the first call the logits are gradients, which are numbers like any others.
template <class T>
void cross_entropy_grad(benchmark::State& state) {
  Operands<T> o(state);
  const double n = double(o.rows * o.cols);
  measure(state,
          CrossEntropyGrad<T>{o.rows, 0, o.cols, o.logits.data(), o.cols, o.labels.data(), o.max.data(),
                              o.sum.data(), o.target.data(), o.dloss.data(), o.loss.data()},
          20 * n, 2 * n * sizeof(T));
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "vocab"})->Args({256, 512})->Args({256, 131072});
}

MIMO_BENCHMARK(cross_entropy_max, sizes);
MIMO_BENCHMARK(cross_entropy_sum, sizes);
MIMO_BENCHMARK(cross_entropy_loss, sizes);
MIMO_BENCHMARK(cross_entropy_grad, sizes);

}  // namespace
}  // namespace mimo::bench
