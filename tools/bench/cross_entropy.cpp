#include "kernels/cross_entropy.h"

#include <fmt/format.h>

#include "tools/bench/bench.h"
#include "tools/bench/torch.h"

namespace mimo::bench {
namespace {

template <class T>
struct Operands {
  int64_t rows, cols;
  Array<T> logits;
  Array<int32_t> labels, arg;
  Array<acc_t<T>> max, sum, target, loss, dloss;
  Array<double> result;

  explicit Operands(const benchmark::State& state)
      : rows(state.range(0)),
        cols(state.range(1)),
        logits(operand<T>(rows * cols)),
        labels(some_labels(rows, cols)),
        arg(rows),
        max(rows, 1),
        sum(rows, 1),
        target(rows),
        loss(rows),
        dloss(1, 1),
        result(1) {}
  static std::vector<int32_t> some_labels(int64_t rows, int64_t cols) {
    std::vector<int32_t> v(rows);
    for (int64_t i = 0; i < rows; ++i) v[i] = static_cast<int32_t>(i * 7919 % cols);
    return v;
  }
};

// The loss and its gradient, as training computes them.
template <class T>
void cross_entropy(benchmark::State& state) {
  Operands<T> o(state);
  const double n = double(o.rows * o.cols);
  const CrossEntropyMax<T> max{.rows = o.rows,
                               .first = 0,
                               .cols = o.cols,
                               .logits = {o.logits.data(), o.cols},
                               .max = o.max.data(),
                               .arg = o.arg.data()};
  const CrossEntropySum<T> sum{.rows = o.rows,
                               .first = 0,
                               .cols = o.cols,
                               .logits = {o.logits.data(), o.cols},
                               .labels = o.labels.data(),
                               .max = o.max.data(),
                               .sum = o.sum.data(),
                               .target = o.target.data()};
  const CrossEntropyLoss<T> loss{.rows = o.rows,
                                 .labels = o.labels.data(),
                                 .sum = o.sum.data(),
                                 .target = o.target.data(),
                                 .result = o.result.data(),
                                 .value = o.loss.data()};
  const CrossEntropyGrad<T> grad{.rows = o.rows,
                                 .first = 0,
                                 .cols = o.cols,
                                 .logits = {o.logits.data(), o.cols},
                                 .labels = o.labels.data(),
                                 .max = o.max.data(),
                                 .sum = o.sum.data(),
                                 .target = o.target.data(),
                                 .dloss = o.dloss.data()};
  measure_all(state, 41 * n, 2 * n * sizeof(T), max, sum, loss, grad);
  compare_with_torch(state, "torch",
                     fmt::format("cross_entropy({}, {}, {})", o.rows, o.cols, name_of(dtype_of<T>())));
}

template <class T>
void cross_entropy_max(benchmark::State& state) {
  Operands<T> o(state);
  const double n = double(o.rows * o.cols);
  measure(state,
          CrossEntropyMax<T>{.rows = o.rows,
                             .first = 0,
                             .cols = o.cols,
                             .logits = {o.logits.data(), o.cols},
                             .max = o.max.data(),
                             .arg = o.arg.data()},
          n, n * sizeof(T));
}

template <class T>
void cross_entropy_sum(benchmark::State& state) {
  Operands<T> o(state);
  const double n = double(o.rows * o.cols);
  measure(state,
          CrossEntropySum<T>{.rows = o.rows,
                             .first = 0,
                             .cols = o.cols,
                             .logits = {o.logits.data(), o.cols},
                             .labels = o.labels.data(),
                             .max = o.max.data(),
                             .sum = o.sum.data(),
                             .target = o.target.data()},
          20 * n, n * sizeof(T));
}

template <class T>
void cross_entropy_loss(benchmark::State& state) {
  Operands<T> o(state);
  measure(state,
          CrossEntropyLoss<T>{.rows = o.rows,
                              .labels = o.labels.data(),
                              .sum = o.sum.data(),
                              .target = o.target.data(),
                              .result = o.result.data(),
                              .value = o.loss.data()},
          20.0 * o.rows, double(o.rows) * (4 + 2 * sizeof(acc_t<T>)));
}

// In place: after the first call the logits are gradients, which are numbers like any others.
template <class T>
void cross_entropy_grad(benchmark::State& state) {
  Operands<T> o(state);
  const double n = double(o.rows * o.cols);
  measure(state,
          CrossEntropyGrad<T>{.rows = o.rows,
                              .first = 0,
                              .cols = o.cols,
                              .logits = {o.logits.data(), o.cols},
                              .labels = o.labels.data(),
                              .max = o.max.data(),
                              .sum = o.sum.data(),
                              .target = o.target.data(),
                              .dloss = o.dloss.data(),
                              .loss = o.loss.data()},
          20 * n, 2 * n * sizeof(T));
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "vocab"});
  if (large())
    b->Args({4096, 131072})->Args({16384, 131072});
  else
    b->Args({256, 512})->Args({256, 131072});
}

MIMO_BENCHMARK(cross_entropy, sizes);
MIMO_BENCHMARK(cross_entropy_max, sizes);
MIMO_BENCHMARK(cross_entropy_sum, sizes);
MIMO_BENCHMARK(cross_entropy_loss, sizes);
MIMO_BENCHMARK(cross_entropy_grad, sizes);

}  // namespace
}  // namespace mimo::bench
