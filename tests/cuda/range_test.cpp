// The ends of float's range, and means far above deviations: tests/kernels/range_test.cpp's on CUDA. A row is
// had by 8 threads, a warp, a block, or read again.
#include "kernels/activation.h"
#include "kernels/gated_norm.h"
#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"
#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

constexpr int kCols[] = {24, 500, 1032, 37};
constexpr Tolerance kTolerance{2, 16};

template <class F>
void check_rows(const F& f) {
  for (const int n : kCols)
    for (const float scale : {3.4e38f, 1e20f, 1e-20f, 1e-38f}) {
      std::vector<double> x;
      for (double v : random_values(n, 3)) x.push_back(rounded(v / 2 * double(scale)));
      SCOPED_TRACE(testing::Message() << n << " columns of " << scale);
      compare<float>([&]<class T>(Case<T>& c) { return f(c, n, x); }, kTolerance);
      x.assign(static_cast<size_t>(n), rounded(double(scale)));  // all equal
      compare<float>([&]<class T>(Case<T>& c) { return f(c, n, x); }, kTolerance);
    }
}

TEST(CudaRange, RmsNorm) {
  check_rows([]<class T>(Case<T>& c, int n, const std::vector<double>& x) {
    return RmsNorm<T>{.in = {.rows = 1, .cols = n, .x = c.in("x", 1, n, 0, x), .w = c.in("w", 1, n)},
                      .eps = 1e-5f,
                      .y = c.out("y", 1, n)};
  });
}

TEST(CudaRange, GatedNorm) {
  check_rows([]<class T>(Case<T>& c, int n, const std::vector<double>& x) {
    const auto y = c.in("y", 1, n, 0, x);
    const auto z = c.in("z", 1, n, 0, std::vector<double>(static_cast<size_t>(n), 0.75));
    return GatedNorm<T>{.in = {.rows = 1, .cols = n, .groups = 1, .y = y, .z = z, .w = c.in("w", 1, n)},
                        .eps = 1e-5f,
                        .out = c.out("out", 1, n)};
  });
}

TEST(CudaRange, LayerNorm) {
  check_rows([]<class T>(Case<T>& c, int n, const std::vector<double>& x) {
    const T *w = c.in("w", 1, n), *b = c.in("b", 1, n);
    // Of equal elements there is but the rounding of their mean, which x itself has.
    const bool equal = x[0] == x[1];
    return LayerNorm<T>{.in = {.rows = 1,
                               .cols = n,
                               .x = c.in("x", 1, n, 0, equal ? std::vector<double>(x.size(), 1) : x),
                               .w = w},
                        .b = b,
                        .eps = 1e-5f,
                        .y = c.out("y", 1, n)};
  });
}

TEST(CudaRange, MeanFarAboveDeviation) {
  for (const int n : {24, 500, 4096, 4099}) {
    std::vector<float> x(static_cast<size_t>(n));
    for (int c = 0; c < n; ++c) x[static_cast<size_t>(c)] = 1e6f + static_cast<float>(c * 37 % 64 / 8);
    SCOPED_TRACE(n);
    compare<float>(
        [&]<class T>(Case<T>& c) {
          return LayerNorm<T>{.in = {.rows = 1,
                                     .cols = n,
                                     .x = {c.data(std::vector<T>(x.begin(), x.end())), n},
                                     .w = c.in("w", 1, n)},
                              .b = c.in("b", 1, n),
                              .eps = 1e-5f,
                              .y = c.out("y", 1, n),
                              .mean = c.acc_out("mean", 1),
                              .rstd = c.acc_out("rstd", 1)};
        },
        kTolerance);
  }
}

TEST(CudaRange, Activations) {
  const float most = std::numeric_limits<float>::max();
  const std::vector<float> x{-most, -1e30f, -2e19f, -104, -1e-38f, 0, 1e-38f, 104, 2e19f, 1e30f, most};
  const int64_t n = static_cast<int64_t>(x.size());
  for (const auto kind : {ActivationKind::gelu_erf, ActivationKind::gelu_tanh, ActivationKind::quick_gelu,
                          ActivationKind::silu}) {
    const auto run_both = [&]<class T>(auto context, Case<T>& c) {
      const T *in = c.data(std::vector<T>(x.begin(), x.end())),
              *dy = c.data(std::vector<T>(x.size(), T(0.75f)));
      const auto y = c.out("y", 1, n), dx = c.out("dx", 1, n);
      const ActivationInputs<T> of_x{.kind = kind, .rows = 1, .cols = n, .x = {in, n}};
      run(context, Activation<T>{.in = of_x, .y = y});
      run(context, ActivationBackward<T>{.in = of_x, .dy = {dy, n}, .dx = dx});
      synchronize();
    };
    Case<double> exact{Cpu{}};
    run_both(Cpu{}, exact);
    Case<float> got(cuda_context());
    run_both(cuda_context(), got);
    for (size_t r = 0; r < 2; ++r) {
      const auto want = exact.results()[r].values(), have = got.results()[r].values();
      for (size_t i = 0; i < want.size(); ++i)
        EXPECT_NEAR(have[i], want[i], 1e-6 * std::fabs(want[i]) + 1e-37) << "result " << r << " of " << x[i];
    }
  }
}

}  // namespace
}  // namespace mimo::op_test
