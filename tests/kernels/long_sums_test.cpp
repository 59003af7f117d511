// Every sum whose length grows with the batch or the model, in float against double. Terms are of one sign,
// so that roundings add up instead of cancelling.
#include <cmath>
#include <memory>

#include "kernels/kernels.h"
#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

// The arrays of one run. Inputs are floats in [low, high), the same for every T.
template <class T>
class Arrays {
 public:
  T* in(int64_t n, double low = 0.5, double high = 1.5) {
    std::mt19937_64 engine(++seed_);
    std::vector<T> v(n);
    for (T& x : v) x = T(float(low + (high - low) * double(engine() % (1 << 20)) / (1 << 20)));
    return keep(std::move(v));
  }
  T* constant(int64_t n, double value) { return keep(std::vector<T>(n, T(float(value)))); }
  T* out(int64_t n) { return keep(std::vector<T>(n, T(0))); }
  T* result(int64_t n) {
    T* p = out(n);
    results_.push_back({p, n});
    return p;
  }
  const int32_t* ints(std::vector<int32_t> v) {
    ints_.push_back(std::make_unique<std::vector<int32_t>>(std::move(v)));
    return ints_.back()->data();
  }
  std::vector<std::vector<double>> results() const {
    std::vector<std::vector<double>> all;
    for (const auto& [p, n] : results_) all.emplace_back(p, p + n);
    return all;
  }

 private:
  T* keep(std::vector<T> v) {
    kept_.push_back(std::make_unique<std::vector<T>>(std::move(v)));
    return kept_.back()->data();
  }
  uint64_t seed_ = 0;
  std::vector<std::unique_ptr<std::vector<T>>> kept_;
  std::vector<std::unique_ptr<std::vector<int32_t>>> ints_;
  std::vector<std::pair<T*, int64_t>> results_;
};

// Each result's largest error is at most `roundings` of float, relative to its largest element.
template <class Build>
void expect_close(const char* what, const Build& build, double roundings) {
  Arrays<double> exact;
  run_op(build.template operator()<double>(exact));
  Arrays<float> single;
  run_op(build.template operator()<float>(single));
  const auto want = exact.results(), have = single.results();
  for (size_t r = 0; r < want.size(); ++r) {
    double worst = 0;
    for (size_t i = 0; i < want[r].size(); ++i) worst = std::max(worst, std::fabs(have[r][i] - want[r][i]));
    const double relative = worst / max_abs(want[r]) * 0x1p24;
    EXPECT_LE(relative, roundings) << what << ", result " << r << ", in roundings of float";
  }
}

constexpr int64_t kRows = 1 << 17;
constexpr int kCols = 1 << 16;

// Statistics of a row are those of the whole row: they may be off by little more than a result's own
// roundings. Gradients of parameters and what attention gathers are added one by one over thousands of rows
// (of a block, a sequence, one token's occurrences): in units of the sum they are off by half a rounding a
// term at worst, and by 1.5e-5 here.
constexpr double kOfRow = 8, kOneByOne = 256;

TEST(LongSums, Rows) {
  expect_close(
      "rms norm",
      [&]<class T>(Arrays<T>& a) {
        return RmsNorm<T>{.in = {.rows = 1, .cols = kCols, .x = {a.in(kCols), kCols}, .w = a.in(kCols)},
                          .eps = T(1e-5f),
                          .y = {a.result(kCols), kCols},
                          .r = a.result(1)};
      },
      kOfRow);
  expect_close(
      "rms norm backward",
      [&]<class T>(Arrays<T>& a) {
        return RmsNormBackward<T>{
            .in = {.rows = 1, .cols = kCols, .x = {a.in(kCols), kCols}, .w = a.in(kCols)},
            .r = a.constant(1, 1),
            .dy = {a.in(kCols), kCols},
            .dx = {a.result(kCols), kCols},
            .dw = a.result(kCols)};
      },
      kOfRow);
  expect_close(
      "layer norm",
      [&]<class T>(Arrays<T>& a) {
        return LayerNorm<T>{.in = {.rows = 1, .cols = kCols, .x = {a.in(kCols), kCols}, .w = a.in(kCols)},
                            .b = a.in(kCols),
                            .eps = T(1e-5f),
                            .y = {a.result(kCols), kCols},
                            .mean = a.result(1),
                            .rstd = a.result(1)};
      },
      kOfRow);
  expect_close(
      "layer norm backward",
      [&]<class T>(Arrays<T>& a) {
        return LayerNormBackward<T>{
            .in = {.rows = 1, .cols = kCols, .x = {a.in(kCols), kCols}, .w = a.in(kCols)},
            .mean = a.constant(1, 0.25),
            .rstd = a.constant(1, 1),
            .dy = {a.in(kCols), kCols},
            .dx = {a.result(kCols), kCols},
            .dw = a.result(kCols),
            .db = a.result(kCols)};
      },
      kOfRow);
  expect_close(
      "gated norm",
      [&]<class T>(Arrays<T>& a) {
        return GatedNorm<T>{.in = {.rows = 1,
                                   .cols = kCols,
                                   .groups = 1,
                                   .y = {a.in(kCols), kCols},
                                   .z = {a.in(kCols), kCols},
                                   .w = a.in(kCols)},
                            .eps = T(1e-5f),
                            .out = {a.result(kCols), kCols},
                            .r = a.result(1)};
      },
      kOfRow);
  expect_close(
      "gated norm backward",
      [&]<class T>(Arrays<T>& a) {
        return GatedNormBackward<T>{.in = {.rows = 1,
                                           .cols = kCols,
                                           .groups = 1,
                                           .y = {a.in(kCols), kCols},
                                           .z = {a.in(kCols), kCols},
                                           .w = a.in(kCols)},
                                    .r = a.constant(1, 1),
                                    .dout = {a.in(kCols), kCols},
                                    .dy = {a.result(kCols), kCols},
                                    .dz = {a.result(kCols), kCols},
                                    .dw = a.result(kCols)};
      },
      kOfRow);
  expect_close(
      "cross entropy",
      [&]<class T>(Arrays<T>& a) {
        return CrossEntropySum<T>{.rows = 1,
                                  .first = 0,
                                  .cols = kCols,
                                  .logits = {a.in(kCols), kCols},
                                  .labels = a.ints({5}),
                                  .max = a.constant(1, 1.5),
                                  .sum = a.result(1),
                                  .target = a.result(1)};
      },
      kOfRow);
  expect_close(
      "attention",
      [&]<class T>(Arrays<T>& a) {
        const auto q = a.in(8), k = a.in(int64_t{8} * kCols), v = a.in(int64_t{8} * kCols);
        return Attention<T>{.in = {.sequences = 1,
                                   .cu_q = a.ints({0, 1}),
                                   .cu_k = a.ints({0, kCols}),
                                   .tokens_q = 1,
                                   .tokens_k = kCols,
                                   .heads = 1,
                                   .kv_heads = 1,
                                   .head_dim = 8,
                                   .causal = false,
                                   .scale = 1,
                                   .q = {q, 8},
                                   .k = {k, 8},
                                   .v = {v, 8}},
                            .o = {a.result(8), 8},
                            .lse = a.result(1)};
      },
      kOneByOne);
}

TEST(LongSums, GradientsOfParameters) {
  constexpr int n = 8;
  expect_close(
      "rms norm: weights",
      [&]<class T>(Arrays<T>& a) {
        return RmsNormBackward<T>{.in = {.rows = kRows, .cols = n, .x = {a.in(kRows * n), n}, .w = a.in(n)},
                                  .r = a.constant(kRows, 1),
                                  .dy = {a.in(kRows * n), n},
                                  .dx = {a.out(kRows * n), n},
                                  .dw = a.result(n)};
      },
      kOneByOne);
  expect_close(
      "layer norm: weights, bias",
      [&]<class T>(Arrays<T>& a) {
        return LayerNormBackward<T>{.in = {.rows = kRows, .cols = n, .x = {a.in(kRows * n), n}, .w = a.in(n)},
                                    .mean = a.constant(kRows, 0.25),
                                    .rstd = a.constant(kRows, 1),
                                    .dy = {a.in(kRows * n), n},
                                    .dx = {a.out(kRows * n), n},
                                    .dw = a.result(n),
                                    .db = a.result(n)};
      },
      kOneByOne);
  expect_close(
      "gated norm: weights",
      [&]<class T>(Arrays<T>& a) {
        return GatedNormBackward<T>{.in = {.rows = kRows,
                                           .cols = n,
                                           .groups = 1,
                                           .y = {a.in(kRows * n), n},
                                           .z = {a.in(kRows * n), n},
                                           .w = a.in(n)},
                                    .r = a.constant(kRows, 1),
                                    .dout = {a.in(kRows * n), n},
                                    .dy = {a.out(kRows * n), n},
                                    .dz = {a.out(kRows * n), n},
                                    .dw = a.result(n)};
      },
      kOneByOne);
  expect_close(
      "bias",
      [&]<class T>(Arrays<T>& a) {
        return AddColumnSums<T>{.rows = kRows, .cols = n, .x = {a.in(kRows * n), n}, .y = a.result(n)};
      },
      kOneByOne);
  expect_close(
      "bias, one gradient",
      [&]<class T>(Arrays<T>& a) {
        return AddColumnSums<T>{
            .rows = kRows, .cols = n, .x = {a.constant(kRows * n, 0.7), n}, .y = a.result(n)};
      },
      kOneByOne);
  expect_close(
      "embedding",
      [&]<class T>(Arrays<T>& a) {
        return EmbeddingBackward<T>{.in = {.tokens = kRows,
                                           .cols = n,
                                           .first = 0,
                                           .rows = 2,
                                           .ids = a.ints(std::vector<int32_t>(kRows, 1))},
                                    .dout = {a.in(kRows * n), n},
                                    .dtable = a.result(2 * n)};
      },
      kOneByOne);
  expect_close(
      "position embedding",
      [&]<class T>(Arrays<T>& a) {
        const int images = 4096;
        std::vector<int32_t> sizes(2 * images, 4), cu;
        for (int i = 0; i <= images; ++i) cu.push_back(16 * i);
        return PositionEmbeddingBackward<T>{
            .in = {.images = images, .sizes = a.ints(sizes), .cu = a.ints(cu), .grid = 2, .cols = n},
            .dout = {a.in(int64_t{16} * images * n), n},
            .dtable = a.result(4 * n)};
      },
      kOneByOne);
  expect_close(
      "causal convolution",
      [&]<class T>(Arrays<T>& a) {
        return CausalConvBackward<T>{.in = {.sequences = 1,
                                            .cu = a.ints({0, kRows}),
                                            .tokens = kRows,
                                            .channels = n,
                                            .width = 4,
                                            .x = {a.in(kRows * n), n},
                                            .weight = a.in(4 * n),
                                            .bias = a.in(n)},
                                     .dy = {a.in(kRows * n), n},
                                     .dx = {a.out(kRows * n), n},
                                     .dweight = a.result(4 * n),
                                     .dbias = a.result(n)};
      },
      kOneByOne);
  expect_close(
      "selective scan",
      [&]<class T>(Arrays<T>& a) {
        const int64_t t = kRows / 4;
        return SelectiveScanBackward<T>{.in = {.sequences = 1,
                                               .cu = a.ints({0, int32_t(t)}),
                                               .tokens = t,
                                               .channels = n,
                                               .state = 2,
                                               .u = {a.in(t * n), n},
                                               .delta = {a.in(t * n), n},
                                               .b = {a.in(t * 2), 2},
                                               .c = {a.in(t * 2), 2},
                                               .delta_bias = a.in(n),
                                               .a_log = a.in(2 * n),
                                               .d = a.in(n)},
                                        .dy = {a.in(t * n), n},
                                        .du = {a.out(t * n), n},
                                        .ddelta = {a.out(t * n), n},
                                        .db = {a.out(t * 2), 2},
                                        .dc = {a.out(t * 2), 2},
                                        .ddelta_bias = a.result(n),
                                        .da_log = a.result(2 * n),
                                        .dd = a.result(n)};
      },
      kOneByOne);
  expect_close(
      "ssd",
      [&]<class T>(Arrays<T>& a) {
        const int64_t t = kRows / 4;
        return SsdBackward<T>{.in = {.sequences = 1,
                                     .cu = a.ints({0, int32_t(t)}),
                                     .tokens = t,
                                     .heads = 2,
                                     .head_dim = 4,
                                     .groups = 1,
                                     .state = 4,
                                     .chunk = 64,
                                     .x = {a.in(t * 8), 8},
                                     .b = {a.in(t * 4), 4},
                                     .c = {a.in(t * 4), 4},
                                     .dt = {a.in(t * 2), 2},
                                     .dt_bias = a.in(2),
                                     .a_log = a.in(2),
                                     .d = a.in(2)},
                              .dy = {a.in(t * 8), 8},
                              .dx = {a.out(t * 8), 8},
                              .db = {a.out(t * 4), 4},
                              .dc = {a.out(t * 4), 4},
                              .ddt = {a.out(t * 2), 2},
                              .ddt_bias = a.result(2),
                              .da_log = a.result(2),
                              .dd = a.result(2)};
      },
      kOneByOne);
}

}  // namespace
}  // namespace mimo::op_test
