#include "kernels/activation.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

constexpr ActivationKind kKinds[] = {ActivationKind::relu2, ActivationKind::gelu_erf,
                                     ActivationKind::gelu_tanh, ActivationKind::quick_gelu,
                                     ActivationKind::silu};
struct Size {
  int64_t rows, cols, pad;
};
// Rows end to end and apart, whole blocks and rests, on 16-byte boundaries and off them.
constexpr Size kSizes[] = {{3, 3000, 0}, {70, 128, 8}, {30, 13, 3}, {5, 13, 11}, {0, 8, 0}, {3, 0, 0}};

// A result is a product of six rounded factors at most. In float each is rounded as the result is, so these
// are allowed on top of the CPU's error.
template <class Build>
void check(const Build& build) {
  compare<float>(build, {2, 6});
  compare<bf16>(build);
}

TEST(CudaActivation, Forward) {
  for (const ActivationKind kind : kKinds)
    for (const Size& s : kSizes)
      check([&]<class T>(Case<T>& c) {
        return Activation<T>{
            .in = {.kind = kind, .rows = s.rows, .cols = s.cols, .x = c.in("x", s.rows, s.cols, s.pad)},
            .y = c.out("y", s.rows, s.cols)};
      });
}

TEST(CudaActivation, Backward) {
  for (const ActivationKind kind : kKinds)
    for (const Size& s : kSizes)
      check([&]<class T>(Case<T>& c) {
        return ActivationBackward<T>{
            .in = {.kind = kind, .rows = s.rows, .cols = s.cols, .x = c.in("x", s.rows, s.cols, s.pad)},
            .dy = c.in("dy", s.rows, s.cols),
            .dx = c.out("dx", s.rows, s.cols, s.pad)};
      });
}

TEST(CudaActivation, SwiGlu) {
  for (const Size& s : kSizes) {
    check([&]<class T>(Case<T>& c) {
      return SwiGlu<T>{.in = {.rows = s.rows, .cols = s.cols, .x = c.in("x", s.rows, 2 * s.cols, s.pad)},
                       .y = c.out("y", s.rows, s.cols)};
    });
    check([&]<class T>(Case<T>& c) {
      return SwiGluBackward<T>{
          .in = {.rows = s.rows, .cols = s.cols, .x = c.in("x", s.rows, 2 * s.cols, s.pad)},
          .dy = c.in("dy", s.rows, s.cols),
          .dx = c.out("dx", s.rows, 2 * s.cols)};
    });
  }
}

// Each element on its own, so that small ones count too: the far left, where the value vanishes, zero, large
// ones. Relative to the value the error is a few roundings of T.
template <class T>
void check_relative(ActivationKind kind) {
  std::vector<double> points;
  for (double x = -8; x <= 8; x += 0.0625) points.push_back(rounded(x));
  for (double x : {-200., -90., -12., 12., 90., 200.}) points.push_back(x);
  const int64_t n = static_cast<int64_t>(points.size());
  Case<double> exact{Cpu{}};
  double* want = exact.out("y", 1, n);
  run(Cpu{},
      Activation<double>{.in = {.kind = kind, .rows = 1, .cols = n, .x = {exact.in("x", 1, n, 0, points), n}},
                         .y = {want, n}});
  Case<T> c(cuda_context());
  const auto y = c.out("y", 1, n);
  run(cuda_context(),
      Activation<T>{.in = {.kind = kind, .rows = 1, .cols = n, .x = c.in("x", 1, n, 0, points)}, .y = y});
  synchronize();
  const std::vector<T> have = read(y.data, n);
  for (int64_t i = 0; i < n; ++i) {
    // exp(z) has a relative error of |z| roundings where z has one; |z| <= 33 + a^2 / 2 here.
    const double a = std::fabs(points[i]), in_exponent = (2 * a + a * a) * 0x1p-23;
    if (a > 12) {  // vanished, or the identity
      EXPECT_NEAR(double(have[i]), want[i], epsilon<T>() * std::fabs(want[i]) + 1e-30);
    } else {
      EXPECT_NEAR(double(have[i]), want[i], (4 * epsilon<T>() + in_exponent) * std::fabs(want[i]) + 1e-37)
          << points[i];
    }
  }
}

TEST(CudaActivation, FarFromZero) {
  for (const ActivationKind kind : kKinds) {
    check_relative<float>(kind);
    check_relative<bf16>(kind);
  }
}

}  // namespace
}  // namespace mimo::op_test
