#include "kernels/elementwise.h"

#include "kernels/embedding.h"
#include "kernels/philox.h"
#include "kernels/rope.h"
#include "kernels/rows.h"
#include "tools/bench/bench.h"

namespace mimo::bench {
namespace {

template <class T>
void add(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  const auto a = operand<T>(n), b = operand<T>(n);
  Array<T> y(n);
  measure(state, Add<T>{rows, cols, a.data(), cols, b.data(), cols, y.data(), cols}, double(n),
          3.0 * n * sizeof(T));
}

template <class T>
void copy(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  const auto x = operand<T>(n);
  Array<T> y(n);
  measure(state, Copy<T>{rows, cols, x.data(), cols, y.data(), cols}, 0, 2.0 * n * sizeof(T));
}

template <class T>
void fill(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  Array<T> y(n);
  measure(state, Fill<T>{rows, cols, y.data(), cols, 1}, 0, double(n) * sizeof(T));
}

template <class T>
void scale(benchmark::State& state) {
  const int64_t n = state.range(0) * state.range(1);
  Array<T> x = operand<T>(n);
  const Array<double> factor(1, 1);
  measure(state, Scale<T>{n, x.data(), factor.data()}, double(n), 2.0 * n * sizeof(T));
}

template <class T>
void to_acc(benchmark::State& state) {
  const int64_t n = state.range(0) * state.range(1);
  const auto x = operand<T>(n);
  Array<acc_t<T>> y(n);
  measure(state, ToAcc<T>{n, x.data(), y.data(), true}, double(n),
          n * double(sizeof(T) + 2 * sizeof(acc_t<T>)));
}

template <class T>
void from_acc(benchmark::State& state) {
  const int64_t n = state.range(0) * state.range(1);
  const auto x = operand<acc_t<T>>(n);
  Array<T> y(n);
  measure(state, FromAcc<T>{n, x.data(), y.data()}, 0, n * double(sizeof(T) + sizeof(acc_t<T>)));
}

template <class T>
void add_column_sums(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  const auto x = operand<T>(n);
  Array<acc_t<T>> y(cols);
  measure(state, AddColumnSums<T>{rows, static_cast<int>(cols), x.data(), cols, y.data()}, double(n),
          double(n) * sizeof(T));
}

Array<int32_t> shuffled(int64_t n, int64_t step) {
  std::vector<int32_t> v(n);
  for (int64_t i = 0; i < n; ++i) v[i] = static_cast<int32_t>(i * step % n);
  return v;
}

template <class T>
void gather_rows(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  const auto x = operand<T>(n);
  const auto order = shuffled(rows, 7919);
  Array<T> y(n);
  measure(state, GatherRows<T>{rows, cols, order.data(), x.data(), cols, y.data(), cols}, 0,
          2.0 * n * sizeof(T));
}

template <class T>
void scatter_rows(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  const auto x = operand<T>(n);
  const auto order = shuffled(rows, 7919);
  Array<T> y(n);
  measure(state, ScatterRows<T>{rows, cols, order.data(), x.data(), cols, y.data(), cols}, 0,
          2.0 * n * sizeof(T));
}

template <class T>
void scatter_add_rows(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  const auto x = operand<T>(n);
  const auto order = shuffled(rows, 7919);
  Array<T> y(n);
  measure(state, ScatterAddRows<T>{rows, cols, order.data(), x.data(), cols, y.data(), cols}, double(n),
          3.0 * n * sizeof(T));
}

template <class T>
void embedding(benchmark::State& state) {
  const int64_t tokens = state.range(0), cols = state.range(1), n = tokens * cols;
  const auto table = operand<T>(n);
  const auto ids = shuffled(tokens, 7919);
  Array<T> out(n);
  measure(state,
          Embedding<T>{tokens, static_cast<int>(cols), 0, tokens, ids.data(), table.data(), out.data(), cols},
          0, 2.0 * n * sizeof(T));
}

template <class T>
void embedding_backward(benchmark::State& state) {
  const int64_t tokens = state.range(0), cols = state.range(1), n = tokens * cols;
  const auto dout = operand<T>(n);
  const auto ids = shuffled(tokens, 7919);
  Array<acc_t<T>> dtable(n);
  measure(state,
          EmbeddingBackward<T>{tokens, static_cast<int>(cols), 0, tokens, ids.data(), dout.data(), cols,
                               dtable.data()},
          double(n), n * double(sizeof(T) + 2 * sizeof(acc_t<T>)));
}

template <class T>
void rope(benchmark::State& state) {
  const int64_t tokens = state.range(0), cols = state.range(1), n = tokens * cols;
  const auto x = operand<T>(n);
  const auto positions = shuffled(tokens, 1);
  Array<T> y(n);
  measure(state,
          Rope<T>{tokens, static_cast<int>(cols / 128), 128, 128, 10000, positions.data(), false, x.data(),
                  cols, y.data(), cols},
          3.0 * n, 2.0 * n * sizeof(T));
}

template <class T>
void random_fill(benchmark::State& state) {
  const auto distribution = static_cast<Distribution>(state.range(0));
  const int64_t n = large() ? 1 << 26 : 1 << 20;
  Array<T> out(n);
  measure(state, RandomFill<T>{1, 2, 0, n, distribution, 1, 2, out.data()}, 0, double(sizeof(T)) * n);
}
void distributions(benchmark::internal::Benchmark* b) {  // 0 normal, 1 uniform, ..., 4 inverse softplus
  b->ArgName("distribution")->DenseRange(0, 4);
}

MIMO_BENCHMARK(add, rows_by_cols);
MIMO_BENCHMARK(copy, rows_by_cols);
MIMO_BENCHMARK(fill, rows_by_cols);
MIMO_BENCHMARK(scale, rows_by_cols);
MIMO_BENCHMARK(to_acc, rows_by_cols);
MIMO_BENCHMARK(from_acc, rows_by_cols);
MIMO_BENCHMARK(add_column_sums, rows_by_cols);
MIMO_BENCHMARK(gather_rows, rows_by_cols);
MIMO_BENCHMARK(scatter_rows, rows_by_cols);
MIMO_BENCHMARK(scatter_add_rows, rows_by_cols);
MIMO_BENCHMARK(embedding, rows_by_cols);
MIMO_BENCHMARK(embedding_backward, rows_by_cols);
MIMO_BENCHMARK(rope, rows_by_cols);
MIMO_BENCHMARK(random_fill, distributions);

}  // namespace
}  // namespace mimo::bench
