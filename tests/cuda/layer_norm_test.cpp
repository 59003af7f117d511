#include "kernels/layer_norm.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Size {
  int64_t rows;
  int cols;
  int64_t pad;
};
// By what has a row: 8 threads, a warp, a block; a block that reads it again, since columns, stride or length
// do not suit the others.
constexpr Size kSizes[] = {{140, 24, 0}, {9, 128, 8}, {41, 136, 0}, {5, 512, 16}, {9, 520, 8}, {3, 1288, 0},
                           {13, 37, 0},  {5, 256, 3}, {1, 8200, 0}, {1, 7, 5},    {0, 16, 0}};

template <class T>
LayerNormInputs<T> inputs(Case<T>& c, const Size& s) {
  return {.rows = s.rows, .cols = s.cols, .x = c.in("x", s.rows, s.cols, s.pad), .w = c.in("w", 1, s.cols)};
}

TEST(CudaLayerNorm, Forward) {
  for (const Size& s : kSizes)
    check_cuda([&]<class T>(Case<T>& c) {
      const bool keep = s.rows != 9;
      return LayerNorm<T>{.in = inputs(c, s),
                          .b = c.in("b", 1, s.cols),
                          .eps = 1e-5f,
                          .y = c.out("y", s.rows, s.cols, s.pad),
                          .mean = keep ? c.acc_out("mean", s.rows) : nullptr,
                          .rstd = keep ? c.acc_out("rstd", s.rows) : nullptr};
    });
}

TEST(CudaLayerNorm, VarianceDoesNotCancel) {  // a mean of 64 and a deviation of 1/2
  constexpr int kCols = 520;
  std::vector<double> x;
  for (double v : random_values(2 * kCols, 3)) x.push_back(64 + std::round(v) / 2);
  check_cuda([&]<class T>(Case<T>& c) {
    return LayerNorm<T>{
        .in = {.rows = 2, .cols = kCols, .x = c.in("x", 2, kCols, 0, x), .w = c.in("w", 1, kCols)},
        .b = c.in("b", 1, kCols),
        .eps = 1e-5f,
        .y = c.out("y", 2, kCols),
        .mean = c.acc_out("mean", 2),
        .rstd = c.acc_out("rstd", 2)};
  });
}

TEST(CudaLayerNorm, Backward) {
  for (const Size& s : kSizes)
    for (const auto& [weight, bias] : {std::pair{true, true}, {true, false}, {false, true}, {false, false}}) {
      if (!(weight && bias) && s.rows != 9 && s.rows != 13) continue;  // one of each kind
      check_cuda([&]<class T>(Case<T>& c) {
        return LayerNormBackward<T>{.in = inputs(c, s),
                                    .mean = c.acc_in("mean", s.rows),
                                    .rstd = c.acc_in("rstd", s.rows),
                                    .dy = c.in("dy", s.rows, s.cols),
                                    .dx = c.out("dx", s.rows, s.cols, s.pad),
                                    .dw = weight ? c.sum("dw", s.cols) : nullptr,
                                    .db = bias ? c.sum("db", s.cols) : nullptr};
      });
    }
}

}  // namespace
}  // namespace mimo::op_test
