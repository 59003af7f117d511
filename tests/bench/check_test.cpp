// mimo-bench's check of samples sees what is wrong, on the emulated GPU.
#include <gtest/gtest.h>

#include "tensor/cuda.h"
#include "tools/bench/bench.h"

namespace mimo::bench {
namespace {

struct OnGpu {
  Stream before = current_stream();
  OnGpu() { current_stream() = make_stream({Device::Kind::cuda, 0}); }
  ~OnGpu() { current_stream() = before; }
};

// What the check says of a call whose result is right, and of one whose last 64 bytes are not.
template <class Op, class V>
void expect_seen(const char* name, const Op& op, Array<V>& result) {
  const auto error = [&](bool fault) {
    fill_storage(*result.storage());
    Check check;
    sample(check, op);
    call_of(op)();
    if (fault) {
      std::vector<V> wrong(64 / sizeof(V), V(3));
      cuda::copy(result.data() + result.size() - static_cast<int64_t>(wrong.size()), wrong.data(), 64,
                 current_stream().handle());
    }
    std::string worst;
    const double most = check.judge(worst);
    EXPECT_TRUE(!fault || worst.find(" is 3, expected ") != std::string::npos) << worst;
    return most;
  };
  EXPECT_LE(error(false), 1) << name;
  EXPECT_GT(error(true), 1) << name;
}

template <class T>
void expect_all_seen() {
  const OnGpu gpu;
  const auto x = operand<T>(1 << 16), w = operand<T>(1 << 13);
  const auto f = operand<acc_t<T>>(1 << 12);
  Array<T> y(128 * 64);
  Array<acc_t<T>> sums(128), other(128 * 64), lse(4 * 128);
  expect_seen("rms_norm",
              RmsNorm<T>{.in = {.rows = 128, .cols = 64, .x = {x.data(), 64}, .w = w.data()},
                         .eps = 1e-5f,
                         .y = {y.data(), 64},
                         .r = sums.data()},
              y);
  expect_seen("column sums",
              AddColumnSums<T>{.rows = 300, .cols = 128, .x = {x.data(), 128}, .y = sums.data()}, sums);
  expect_seen("gemm",
              Gemm<T>{.trans_b = true,
                      .m = 128,
                      .n = 64,
                      .k = 96,
                      .a = {x.data(), 96},
                      .b = {w.data(), 96},
                      .c = {y.data(), 64}},
              y);
  const auto cu = packed(2, 64);
  expect_seen("attention",
              Attention<T>{.in = {.sequences = 2,
                                  .cu_q = cu.data(),
                                  .cu_k = cu.data(),
                                  .tokens_q = 128,
                                  .tokens_k = 128,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_dim = 16,
                                  .causal = true,
                                  .scale = 0.2f,
                                  .q = {x.data(), 128},
                                  .k = {x.data() + 64, 128},
                                  .v = {x.data() + 96, 128}},
                           .o = {y.data(), 64},
                           .lse = lse.data()},
              y);
  expect_seen("causal_conv",
              CausalConv<T>{.in = {.sequences = 2,
                                   .cu = cu.data(),
                                   .tokens = 128,
                                   .channels = 64,
                                   .width = 4,
                                   .x = {x.data(), 64},
                                   .weight = w.data(),
                                   .bias = w.data()},
                            .y = {y.data(), 64}},
              y);
  expect_seen("ssd",
              Ssd<T>{.in = {.sequences = 2,
                            .cu = cu.data(),
                            .tokens = 128,
                            .heads = 4,
                            .head_dim = 16,
                            .groups = 2,
                            .state = 16,
                            .chunk = 32,
                            .x = {x.data(), 64},
                            .b = {x.data(), 32},
                            .c = {x.data() + 7, 32},
                            .dt = {w.data(), 4},
                            .dt_bias = f.data(),
                            .a_log = f.data(),
                            .d = f.data(),
                            .dt_min = 0,
                            .dt_max = std::numeric_limits<float>::infinity()},
                     .y = {y.data(), 64}},
              y);
  const Array<int32_t> labels(std::vector<int32_t>(128, 5));
  const Array<acc_t<T>> max(128, 1);
  expect_seen("cross_entropy",
              CrossEntropySum<T>{.rows = 128,
                                 .first = 0,
                                 .cols = 64,
                                 .logits = {x.data(), 64},
                                 .labels = labels.data(),
                                 .max = max.data(),
                                 .sum = sums.data(),
                                 .target = other.data()},
              sums);
  expect_seen(
      "gather",
      GatherRows<T>{
          .count = 128, .cols = 64, .rows = labels.data(), .x = {x.data(), 64}, .out = {y.data(), 64}},
      y);
}

TEST(Check, SeesAPlantedFault) { expect_all_seen<float>(); }
TEST(Check, SeesAPlantedFaultInBf16) { expect_all_seen<bf16>(); }

TEST(Check, LooksAtBothEnds) {
  EXPECT_EQ(some(1), Picks{0});
  EXPECT_EQ(some(3), (Picks{0, 1, 2}));
  EXPECT_EQ(some(100), (Picks{0, 1, 33, 66, 98, 99}));
}

}  // namespace
}  // namespace mimo::bench
