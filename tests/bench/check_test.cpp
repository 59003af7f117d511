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
  expect_seen("column sums", AddColumnSums<T>{300, 128, x.data(), 128, sums.data()}, sums);
  expect_seen("gemm",
              Gemm<T>{false, true, 128, 64, 96, 1, x.data(), 96, w.data(), 96, 0, y.data(), 64, nullptr}, y);
  const auto cu = packed(2, 64);
  expect_seen("attention", Attention<T>{2,         cu.data(),     cu.data(), nullptr,  nullptr,
                                        128,       128,           4,         2,        16,
                                        true,      0.2f,          x.data(),  128,      x.data() + 64,
                                        128,       x.data() + 96, 128,       y.data(), 64,
                                        lse.data()},
              y);
  expect_seen("causal_conv",
              CausalConv<T>{2, cu.data(), 128, 64, 4, x.data(), 64, w.data(), w.data(), nullptr, y.data(), 64,
                            nullptr},
              y);
  expect_seen("ssd",
              Ssd<T>{2,
                     cu.data(),
                     128,
                     4,
                     16,
                     2,
                     16,
                     32,
                     x.data(),
                     64,
                     x.data(),
                     32,
                     x.data() + 7,
                     32,
                     w.data(),
                     4,
                     f.data(),
                     f.data(),
                     f.data(),
                     0,
                     std::numeric_limits<float>::infinity(),
                     nullptr,
                     y.data(),
                     64,
                     nullptr},
              y);
  const Array<int32_t> labels(std::vector<int32_t>(128, 5));
  const Array<acc_t<T>> max(128, 1);
  expect_seen(
      "cross_entropy",
      CrossEntropySum<T>{128, 0, 64, x.data(), 64, labels.data(), max.data(), sums.data(), other.data()},
      sums);
  expect_seen("gather", GatherRows<T>{128, 64, labels.data(), x.data(), 64, y.data(), 64}, y);
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
