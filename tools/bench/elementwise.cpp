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
  measure(
      state,
      Add<T>{.rows = rows, .cols = cols, .a = {a.data(), cols}, .b = {b.data(), cols}, .y = {y.data(), cols}},
      double(n), 3.0 * n * sizeof(T));
}

template <class T>
void copy(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  const auto x = operand<T>(n);
  Array<T> y(n);
  measure(state, Copy<T>{.rows = rows, .cols = cols, .x = {x.data(), cols}, .y = {y.data(), cols}}, 0,
          2.0 * n * sizeof(T));
}

template <class T>
void fill(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  Array<T> y(n);
  measure(state, Fill<T>{.rows = rows, .cols = cols, .y = {y.data(), cols}, .value = 1}, 0,
          double(n) * sizeof(T));
}

template <class T>
void scale(benchmark::State& state) {
  const int64_t n = state.range(0) * state.range(1);
  Array<T> x = operand<T>(n);
  const Array<double> factor(1, 1);
  measure(state, Scale<T>{.n = n, .x = x.data(), .factor = factor.data()}, double(n), 2.0 * n * sizeof(T));
}

template <class T>
void to_acc(benchmark::State& state) {
  const int64_t n = state.range(0) * state.range(1);
  const auto x = operand<T>(n);
  Array<acc_t<T>> y(n);
  measure(state, ToAcc<T>{.n = n, .x = x.data(), .y = y.data(), .accumulate = true}, double(n),
          n * double(sizeof(T) + 2 * sizeof(acc_t<T>)));
}

template <class T>
void from_acc(benchmark::State& state) {
  const int64_t n = state.range(0) * state.range(1);
  const auto x = operand<acc_t<T>>(n);
  Array<T> y(n);
  measure(state, FromAcc<T>{.n = n, .x = x.data(), .y = y.data()}, 0,
          n * double(sizeof(T) + sizeof(acc_t<T>)));
}

template <class T>
void add_column_sums(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  const auto x = operand<T>(n);
  Array<acc_t<T>> y(cols);
  measure(
      state,
      AddColumnSums<T>{.rows = rows, .cols = static_cast<int>(cols), .x = {x.data(), cols}, .y = y.data()},
      double(n), double(n) * sizeof(T));
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
  measure(
      state,
      GatherRows<T>{
          .count = rows, .cols = cols, .rows = order.data(), .x = {x.data(), cols}, .out = {y.data(), cols}},
      0, 2.0 * n * sizeof(T));
}

template <class T>
void scatter_rows(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  const auto x = operand<T>(n);
  const auto order = shuffled(rows, 7919);
  Array<T> y(n);
  measure(
      state,
      ScatterRows<T>{
          .count = rows, .cols = cols, .rows = order.data(), .x = {x.data(), cols}, .out = {y.data(), cols}},
      0, 2.0 * n * sizeof(T));
}

template <class T>
void scatter_add_rows(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), n = rows * cols;
  const auto x = operand<T>(n);
  const auto order = shuffled(rows, 7919);
  Array<T> y(n);
  measure(
      state,
      ScatterAddRows<T>{
          .count = rows, .cols = cols, .rows = order.data(), .x = {x.data(), cols}, .out = {y.data(), cols}},
      double(n), 3.0 * n * sizeof(T));
}

template <class T>
void embedding(benchmark::State& state) {
  const int64_t tokens = state.range(0), cols = state.range(1), n = tokens * cols;
  const auto table = operand<T>(n);
  const auto ids = shuffled(tokens, 7919);
  Array<T> out(n);
  measure(state,
          Embedding<T>{.in = {.tokens = tokens,
                              .cols = static_cast<int>(cols),
                              .first = 0,
                              .rows = tokens,
                              .ids = ids.data()},
                       .table = table.data(),
                       .out = {out.data(), cols}},
          0, 2.0 * n * sizeof(T));
}

template <class T>
void embedding_backward(benchmark::State& state) {
  const int64_t tokens = state.range(0), cols = state.range(1), n = tokens * cols;
  const auto dout = operand<T>(n);
  const auto ids = shuffled(tokens, 7919);
  Array<acc_t<T>> dtable(n);
  measure(state,
          EmbeddingBackward<T>{.in = {.tokens = tokens,
                                      .cols = static_cast<int>(cols),
                                      .first = 0,
                                      .rows = tokens,
                                      .ids = ids.data()},
                               .dout = {dout.data(), cols},
                               .dtable = dtable.data()},
          double(n), n * double(sizeof(T) + 2 * sizeof(acc_t<T>)));
}

template <class T>
void rope(benchmark::State& state) {
  const int64_t tokens = state.range(0), cols = state.range(1), n = tokens * cols;
  const auto x = operand<T>(n);
  const auto positions = shuffled(tokens, 1);
  Array<T> y(n);
  measure(state,
          Rope<T>{.tokens = tokens,
                  .heads = static_cast<int>(cols / 128),
                  .head_dim = 128,
                  .rotary = 128,
                  .theta = 10000,
                  .positions = positions.data(),
                  .x = {x.data(), cols},
                  .y = {y.data(), cols}},
          3.0 * n, 2.0 * n * sizeof(T));
}

template <class T>
void random_fill(benchmark::State& state) {
  const auto distribution = static_cast<Distribution>(state.range(0));
  const int64_t n = large() ? 1 << 26 : 1 << 20;
  Array<T> out(n);
  measure(state,
          RandomFill<T>{.seed = 1,
                        .name = 2,
                        .first = 0,
                        .n = n,
                        .distribution = distribution,
                        .a = 1,
                        .b = 2,
                        .out = out.data()},
          0, double(sizeof(T)) * n);
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
