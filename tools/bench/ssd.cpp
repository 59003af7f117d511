// SSD at the sizes of a small model's short samples and of a large model's long ones.
#include "kernels/ssd.h"

#include <fmt/format.h>

#include "tools/bench/bench.h"
#include "tools/bench/torch.h"

namespace mimo::bench {
namespace {

// Arguments: sequences, their length, heads, head_dim, groups, state, chunk.
struct Case {
  int sequences, length, heads, head_dim, groups, state, chunk;
  explicit Case(const benchmark::State& s)
      : sequences(s.range(0)),
        length(s.range(1)),
        heads(s.range(2)),
        head_dim(s.range(3)),
        groups(s.range(4)),
        state(s.range(5)),
        chunk(s.range(6)) {}
  int64_t tokens() const { return int64_t{sequences} * length; }
  // Products of the chunk form at the given chunk length, 2 FLOP each; a triangle counts half.
  double flop(bool backward) const {
    const double q = std::min(chunk, length), p = head_dim, n = state;
    const double passes = length > chunk ? 1 : 0;  // states are passed
    const double head = backward ? q * p + passes * 5 * p * n : q * p / 2 + passes * 2 * p * n;
    const double group = (backward ? 3 : 1) * q * n / 2;
    return 2 * tokens() * (heads * head + groups * group);
  }
  double elements(bool backward) const {
    const double row = heads * head_dim, group = groups * state;
    return 1.0 * tokens() * (backward ? 3 * row + 4 * group + 2 * heads : 2 * row + 2 * group + heads);
  }
};

template <class T>
void ssd(benchmark::State& state) {
  const Case k(state);
  const bool backward = state.range(7);
  const int64_t hp = int64_t{k.heads} * k.head_dim, gn = int64_t{k.groups} * k.state, t = k.tokens(),
                h = k.heads;
  const auto cu = packed(k.sequences, k.length);
  const auto x = operand<T>(t * hp), b = operand<T>(t * gn), c = operand<T>(t * gn), dt = operand<T>(t * h),
             dy = operand<T>(t * hp);
  const auto bias = operand<float>(h), a_log = operand<float>(h), d = operand<float>(h);
  Array<T> y(t * hp), db(t * gn), dc(t * gn), ddt(t * h);
  Array<float> dh(3 * h);
  const double flop = k.flop(backward), bytes = k.elements(backward) * sizeof(T);
  const SsdInputs<T> in{.sequences = k.sequences,
                        .cu = cu.data(),
                        .tokens = t,
                        .heads = k.heads,
                        .head_dim = k.head_dim,
                        .groups = k.groups,
                        .state = k.state,
                        .chunk = k.chunk,
                        .x = {x.data(), hp},
                        .b = {b.data(), gn},
                        .c = {c.data(), gn},
                        .dt = {dt.data(), h},
                        .dt_bias = bias.data(),
                        .a_log = a_log.data(),
                        .d = d.data()};
  if (backward)
    measure(state,
            SsdBackward<T>{.in = in,
                           .dy = {dy.data(), hp},
                           .dx = {y.data(), hp},
                           .db = {db.data(), gn},
                           .dc = {dc.data(), gn},
                           .ddt = {ddt.data(), h},
                           .ddt_bias = dh.data(),
                           .da_log = dh.data() + h,
                           .dd = dh.data() + 2 * h},
            flop, bytes);
  else
    measure(state, Ssd<T>{.in = in, .y = {y.data(), hp}}, flop, bytes);
  compare_with_torch(state, "mamba_ssm",
                     fmt::format("ssd({}, {}, {}, {}, {}, {}, {}, {})", python(backward), k.sequences,
                                 k.length, k.heads, k.head_dim, k.groups, k.state, name_of(dtype_of<T>())));
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"sequences", "length", "heads", "head_dim", "groups", "state", "chunk", "backward"});
  if (large())  // Nemotron-H of 8 and 12 thousand million parameters
    b->ArgsProduct({{1, 8}, {4096}, {128}, {64}, {8}, {128}, {64}, {0, 1}})
        ->ArgsProduct({{1}, {32768}, {128}, {64}, {8}, {128}, {64}, {0, 1}})
        ->ArgsProduct({{4}, {4096}, {128}, {80}, {8}, {128}, {64}, {0, 1}});
  else
    b->ArgsProduct({{256}, {25}, {4}, {16}, {2}, {16}, {64}, {0, 1}})
        ->ArgsProduct({{256}, {40}, {8}, {32}, {4}, {32}, {64}, {0, 1}})
        ->ArgsProduct({{1}, {4096}, {8}, {64}, {1}, {128}, {64}, {0, 1}})
        ->ArgsProduct({{4}, {2048}, {32}, {64}, {8}, {128}, {64}, {0, 1}});
}
MIMO_BENCHMARK(ssd, sizes);

}  // namespace
}  // namespace mimo::bench
