// Mamba-1's scan at Mamba sizes: 1024 channels, 16 states.
#include "kernels/selective_scan.h"

#include "tools/bench/bench.h"

namespace mimo::bench {
namespace {

template <class T>
void selective_scan(benchmark::State& state) {
  const int sequences = state.range(0), length = state.range(1), channels = state.range(2),
            n = state.range(3);
  const bool backward = state.range(4);
  const int64_t t = int64_t{sequences} * length, size = t * channels;
  const auto cu = packed(sequences, length);
  const auto u = operand<T>(size), delta = operand<T>(size), z = operand<T>(size), dy = operand<T>(size);
  const auto b = operand<T>(t * n), c = operand<T>(t * n);
  const auto bias = operand<float>(channels), a_log = operand<float>(int64_t{channels} * n),
             d = operand<float>(channels);
  Array<T> y(size), ddelta(size), dz(size), db(t * n), dc(t * n);
  Array<float> dbias(channels), da_log(a_log.size()), dd(channels);
  // A channel and state: 6 FLOP and an exp forward; those again and 14 backward.
  const double flop = double(size) * n * (backward ? 20 : 6);
  const double bytes = double(t) * ((backward ? 7 : 4) * channels + (backward ? 4 : 2) * n) * sizeof(T);
  const SelectiveScanInputs<T> in{.sequences = sequences,
                                  .cu = cu.data(),
                                  .tokens = t,
                                  .channels = channels,
                                  .state = n,
                                  .u = {u.data(), channels},
                                  .delta = {delta.data(), channels},
                                  .b = {b.data(), n},
                                  .c = {c.data(), n},
                                  .z = {z.data(), channels},
                                  .delta_bias = bias.data(),
                                  .a_log = a_log.data(),
                                  .d = d.data()};
  if (backward)
    measure(state,
            SelectiveScanBackward<T>{.in = in,
                                     .dy = {dy.data(), channels},
                                     .du = {y.data(), channels},
                                     .ddelta = {ddelta.data(), channels},
                                     .db = {db.data(), n},
                                     .dc = {dc.data(), n},
                                     .dz = {dz.data(), channels},
                                     .ddelta_bias = dbias.data(),
                                     .da_log = da_log.data(),
                                     .dd = dd.data()},
            flop, bytes);
  else
    measure(state, SelectiveScan<T>{.in = in, .y = {y.data(), channels}}, flop, bytes);
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"sequences", "length", "channels", "state", "backward"});
  if (large())
    b->ArgsProduct({{4}, {4096}, {8192}, {16}, {0, 1}});
  else
    b->ArgsProduct({{64}, {25}, {128}, {16}, {0, 1}})->ArgsProduct({{2}, {2048}, {1024}, {16}, {0, 1}});
}
MIMO_BENCHMARK(selective_scan, sizes);

}  // namespace
}  // namespace mimo::bench
