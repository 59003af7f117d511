#include "kernels/gated_norm.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Size {
  int64_t rows;
  int cols, groups;
  int64_t pad;
};
// A group by 8 threads, a warp, a block; and by a block that reads it again.
constexpr Size kSizes[] = {{140, 48, 2, 0}, {9, 128, 1, 8},  {41, 272, 2, 0}, {5, 512, 1, 16},
                           {9, 1040, 2, 8}, {3, 1280, 1, 0}, {13, 111, 3, 0}, {5, 256, 8, 3},
                           {5, 24, 2, 8},   {2, 8200, 1, 0}, {1, 7, 7, 5},    {0, 16, 4, 0}};

// A result is a product of eight factors. In float each product is rounded as the result is, so the CPU's
// error, which may happen to be small where the largest elements are few, is allowed these on top. For bf16
// sigmoid(z) is 1 / (1 + 2^x): the division's error is one of y, the exponential's, and |z| more units from
// the rounding of x, one of z.
const Tolerance kBf16{
    .inputs = {{"y", [](double y, int64_t) { return y * (1 + ulps::kFdividef * ulps::kFloat); }},
               {"z", [](double z, int64_t) { return z - (ulps::kEx2 + std::fabs(z)) * ulps::kFloat; }}}};
template <class Build>
void check(const Build& build) {
  compare<float>(build, {2, 8});
  compare<bf16>(build, kBf16);
}

template <class T>
GatedNormInputs<T> inputs(Case<T>& c, const Size& s) {
  return {.rows = s.rows,
          .cols = s.cols,
          .groups = s.groups,
          .y = c.in("y", s.rows, s.cols),
          .z = c.in("z", s.rows, s.cols, s.pad),
          .w = c.in("w", 1, s.cols)};
}

TEST(CudaGatedNorm, Forward) {
  for (const Size& s : kSizes)
    check([&]<class T>(Case<T>& c) {
      return GatedNorm<T>{.in = inputs(c, s),
                          .eps = 1e-5f,
                          .out = c.out("out", s.rows, s.cols, s.pad),
                          .r = s.rows == 9 ? nullptr : c.acc_out("r", s.rows, s.groups)};
    });
}

TEST(CudaGatedNorm, Backward) {
  for (const Size& s : kSizes)
    for (const bool frozen : {false, true}) {
      if (frozen && s.rows != 9 && s.rows != 13) continue;  // one of each kind
      check([&]<class T>(Case<T>& c) {
        return GatedNormBackward<T>{.in = inputs(c, s),
                                    .r = c.acc_in("r", s.rows, s.groups),
                                    .dout = c.in("dout", s.rows, s.cols),
                                    .dy = c.out("dy", s.rows, s.cols, s.pad),
                                    .dz = c.out("dz", s.rows, s.cols, s.pad),
                                    .dw = frozen ? nullptr : c.sum("dw", s.cols)};
      });
    }
}

// Far from zero sigmoid is 0 or 1, and exp(-z) infinite.
TEST(CudaGatedNorm, LargeGates) {
  check([&]<class T>(Case<T>& c) {
    return GatedNorm<T>{.in = {.rows = 1,
                               .cols = 8,
                               .groups = 1,
                               .y = c.in("y", 1, 8),
                               .z = c.in("z", 1, 8, 0, {-1000, -100, -20, -1, 1, 20, 100, 1000}),
                               .w = c.in("w", 1, 8)},
                        .eps = 1e-5f,
                        .out = c.out("out", 1, 8),
                        .r = c.acc_out("r", 1)};
  });
}

TEST(CudaGatedNorm, GroupsThatDoNotDivide) {
  GatedNorm<float> op{};
  op.in.cols = 10;
  for (op.in.groups = 3; op.in.groups >= 0; op.in.groups -= 3)
    EXPECT_THROW(run(cuda_context(), op), std::invalid_argument);
}

}  // namespace
}  // namespace mimo::op_test
