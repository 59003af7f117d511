// The convolution reads x|B|C where it lies, in rows of the fused projection z|x|B|C|dt.
#include "kernels/causal_conv.h"

#include <fmt/format.h>

#include "tools/bench/bench.h"
#include "tools/bench/torch.h"

namespace mimo::bench {
namespace {

template <class T>
void causal_conv(benchmark::State& state) {
  const int sequences = state.range(0), length = state.range(1), channels = state.range(2), width = 4;
  const bool backward = state.range(3);
  const int64_t t = int64_t{sequences} * length, ld = 2 * int64_t{channels};
  const auto cu = packed(sequences, length);
  const auto fused = operand<T>(t * ld), dy = operand<T>(t * channels),
             weight = operand<T>(int64_t{channels} * width), bias = operand<T>(channels);
  Array<T> y(t * channels), dfused(t * ld);
  Array<float> dweight(weight.size()), dbias(channels);
  const double flop = double(t) * channels * width * (backward ? 6 : 2);
  const double bytes = double(t) * channels * (backward ? 3 : 2) * sizeof(T);
  const CausalConvInputs<T> in{.sequences = sequences,
                               .cu = cu.data(),
                               .tokens = t,
                               .channels = channels,
                               .width = width,
                               .x = {fused.data() + channels, ld},
                               .weight = weight.data(),
                               .bias = bias.data()};
  if (backward)
    measure(state,
            CausalConvBackward<T>{.in = in,
                                  .dy = {dy.data(), channels},
                                  .dx = {dfused.data() + channels, ld},
                                  .dweight = dweight.data(),
                                  .dbias = dbias.data()},
            flop, bytes);
  else
    measure(state, CausalConv<T>{.in = in, .y = {y.data(), channels}}, flop, bytes);
  compare_with_torch(state, "torch conv1d",
                     fmt::format("conv1d({}, {}, {}, {}, {}, {})", python(backward), sequences, length,
                                 channels, width, name_of(dtype_of<T>())));
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"sequences", "length", "channels", "backward"});
  if (large())  // x, B and C of Nemotron-H's 128 heads
    b->ArgsProduct({{1}, {4096}, {10240}, {0, 1}})->ArgsProduct({{8}, {4096}, {10240}, {0, 1}});
  else
    b->ArgsProduct({{256}, {25}, {128}, {0, 1}})->ArgsProduct({{2}, {2048}, {3072}, {0, 1}});
}
MIMO_BENCHMARK(causal_conv, sizes);

}  // namespace
}  // namespace mimo::bench
