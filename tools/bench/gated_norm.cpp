#include "kernels/gated_norm.h"

#include <fmt/format.h>

#include "tools/bench/bench.h"
#include "tools/bench/torch.h"

namespace mimo::bench {
namespace {

template <class T>
void gated_norm(benchmark::State& state) {
  const int64_t rows = state.range(0);
  const int cols = state.range(1), groups = state.range(2);
  const bool backward = state.range(3);
  const auto y = operand<T>(rows * cols), z = operand<T>(rows * cols), w = operand<T>(cols),
             dout = operand<T>(rows * cols);
  Array<T> out(rows * cols), dz(rows * cols);
  Array<float> r(rows * groups, 1), dw(cols);
  const double flop = double(rows) * cols * (backward ? 20 : 8);
  const double bytes = double(rows) * cols * (backward ? 5 : 3) * sizeof(T);
  const GatedNormInputs<T> in{.rows = rows,
                              .cols = cols,
                              .groups = groups,
                              .y = {y.data(), cols},
                              .z = {z.data(), cols},
                              .w = w.data()};
  if (backward)
    measure(state,
            GatedNormBackward<T>{.in = in,
                                 .r = r.data(),
                                 .dout = {dout.data(), cols},
                                 .dy = {out.data(), cols},
                                 .dz = {dz.data(), cols},
                                 .dw = dw.data()},
            flop, bytes);
  else
    measure(state, GatedNorm<T>{.in = in, .eps = 1e-5f, .out = {out.data(), cols}, .r = r.data()}, flop,
            bytes);
  compare_with_torch(state, "torch compiled",
                     fmt::format("gated_norm({}, {}, {}, {}, {})", python(backward), rows, cols, groups,
                                 name_of(dtype_of<T>())));
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "cols", "groups", "backward"});
  if (large())
    b->ArgsProduct({{4096, 32768}, {8192}, {8}, {0, 1}});
  else
    b->ArgsProduct({{6400}, {64}, {2}, {0, 1}})->ArgsProduct({{4096}, {2048}, {8}, {0, 1}});
}
MIMO_BENCHMARK(gated_norm, sizes);

}  // namespace
}  // namespace mimo::bench
