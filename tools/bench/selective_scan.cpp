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
  if (backward)
    measure(
        state,
        SelectiveScanBackward<T>{
            sequences,     cu.data(),     t,         channels,  n,         u.data(), channels,  delta.data(),
            channels,      b.data(),      n,         c.data(),  n,         z.data(), channels,  bias.data(),
            a_log.data(),  d.data(),      nullptr,   dy.data(), channels,  nullptr,  y.data(),  channels,
            ddelta.data(), channels,      db.data(), n,         dc.data(), n,        dz.data(), channels,
            dbias.data(),  da_log.data(), dd.data(), nullptr},
        flop, bytes);
  else
    measure(state,
            SelectiveScan<T>{
                sequences,    cu.data(), t,       channels, n,        u.data(), channels, delta.data(),
                channels,     b.data(),  n,       c.data(), n,        z.data(), channels, bias.data(),
                a_log.data(), d.data(),  nullptr, y.data(), channels, nullptr},
            flop, bytes);
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
