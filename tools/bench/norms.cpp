#include <fmt/format.h>

#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"
#include "tools/bench/bench.h"
#include "tools/bench/torch.h"

namespace mimo::bench {
namespace {

template <class T>
void compare(benchmark::State& state, const char* norm, bool backward) {
  compare_with_torch(state, "torch",
                     fmt::format("{}({}, {}, {}, {})", norm, python(backward), state.range(0), state.range(1),
                                 name_of(dtype_of<T>())));
}

template <class T>
void rms_norm(benchmark::State& state) {
  const int64_t rows = state.range(0), n = rows * state.range(1);
  const int cols = static_cast<int>(state.range(1));
  const auto x = operand<T>(n), w = operand<T>(cols);
  Array<T> y(n);
  Array<acc_t<T>> r(rows);
  measure(state,
          RmsNorm<T>{.in = {.rows = rows, .cols = cols, .x = {x.data(), cols}, .w = w.data()},
                     .eps = acc_t<T>(1e-5),
                     .y = {y.data(), cols},
                     .r = r.data()},
          4.0 * n, 2.0 * n * sizeof(T));
  compare<T>(state, "rms_norm", false);
}

template <class T>
void rms_norm_backward(benchmark::State& state) {
  const int64_t rows = state.range(0), n = rows * state.range(1);
  const int cols = static_cast<int>(state.range(1));
  const auto x = operand<T>(n), w = operand<T>(cols), dy = operand<T>(n);
  Array<T> dx(n);
  Array<acc_t<T>> r(rows, 1), dw(cols);
  measure(state,
          RmsNormBackward<T>{.in = {.rows = rows, .cols = cols, .x = {x.data(), cols}, .w = w.data()},
                             .r = r.data(),
                             .dy = {dy.data(), cols},
                             .dx = {dx.data(), cols},
                             .dw = dw.data()},
          11.0 * n, 3.0 * n * sizeof(T));
  compare<T>(state, "rms_norm", true);
}

template <class T>
void layer_norm(benchmark::State& state) {
  const int64_t rows = state.range(0), n = rows * state.range(1);
  const int cols = static_cast<int>(state.range(1));
  const auto x = operand<T>(n), w = operand<T>(cols), b = operand<T>(cols);
  Array<T> y(n);
  Array<acc_t<T>> mean(rows), rstd(rows);
  measure(state,
          LayerNorm<T>{.in = {.rows = rows, .cols = cols, .x = {x.data(), cols}, .w = w.data()},
                       .b = b.data(),
                       .eps = acc_t<T>(1e-5),
                       .y = {y.data(), cols},
                       .mean = mean.data(),
                       .rstd = rstd.data()},
          8.0 * n, 2.0 * n * sizeof(T));
  compare<T>(state, "layer_norm", false);
}

template <class T>
void layer_norm_backward(benchmark::State& state) {
  const int64_t rows = state.range(0), n = rows * state.range(1);
  const int cols = static_cast<int>(state.range(1));
  const auto x = operand<T>(n), w = operand<T>(cols), dy = operand<T>(n);
  Array<T> dx(n);
  Array<acc_t<T>> mean(rows), rstd(rows, 1), dw(cols), db(cols);
  measure(state,
          LayerNormBackward<T>{.in = {.rows = rows, .cols = cols, .x = {x.data(), cols}, .w = w.data()},
                               .mean = mean.data(),
                               .rstd = rstd.data(),
                               .dy = {dy.data(), cols},
                               .dx = {dx.data(), cols},
                               .dw = dw.data(),
                               .db = db.data()},
          16.0 * n, 3.0 * n * sizeof(T));
  compare<T>(state, "layer_norm", true);
}

MIMO_BENCHMARK(rms_norm, rows_by_cols);
MIMO_BENCHMARK(rms_norm_backward, rows_by_cols);
MIMO_BENCHMARK(layer_norm, rows_by_cols);
MIMO_BENCHMARK(layer_norm_backward, rows_by_cols);

}  // namespace
}  // namespace mimo::bench
