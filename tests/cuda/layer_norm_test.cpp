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

TEST(CudaLayerNorm, Forward) {
  for (const Size& s : kSizes)
    check_cuda([&]<class T>(Case<T>& c) {
      const bool keep = s.rows != 9;
      return LayerNorm<T>{s.rows,
                          s.cols,
                          c.in("x", s.rows, s.cols, s.pad),
                          s.cols + s.pad,
                          c.in("w", 1, s.cols),
                          c.in("b", 1, s.cols),
                          1e-5f,
                          c.out("y", s.rows, s.cols, s.pad),
                          s.cols + s.pad,
                          keep ? c.acc_out("mean", s.rows) : nullptr,
                          keep ? c.acc_out("rstd", s.rows) : nullptr};
    });
}

TEST(CudaLayerNorm, VarianceDoesNotCancel) {  // a mean of 64 and a deviation of 1/2
  constexpr int kCols = 520;
  std::vector<double> x;
  for (double v : random_values(2 * kCols, 3)) x.push_back(64 + std::round(v) / 2);
  check_cuda([&]<class T>(Case<T>& c) {
    return LayerNorm<T>{2,
                        kCols,
                        c.in("x", 2, kCols, 0, x),
                        kCols,
                        c.in("w", 1, kCols),
                        c.in("b", 1, kCols),
                        1e-5f,
                        c.out("y", 2, kCols),
                        kCols,
                        c.acc_out("mean", 2),
                        c.acc_out("rstd", 2)};
  });
}

TEST(CudaLayerNorm, Backward) {
  for (const Size& s : kSizes)
    for (const auto& [weight, bias] : {std::pair{true, true}, {true, false}, {false, true}, {false, false}}) {
      if (!(weight && bias) && s.rows != 9 && s.rows != 13) continue;  // one of each kind
      check_cuda([&]<class T>(Case<T>& c) {
        return LayerNormBackward<T>{s.rows,
                                    s.cols,
                                    c.in("x", s.rows, s.cols, s.pad),
                                    s.cols + s.pad,
                                    c.in("w", 1, s.cols),
                                    c.acc_in("mean", s.rows),
                                    c.acc_in("rstd", s.rows),
                                    c.in("dy", s.rows, s.cols),
                                    s.cols,
                                    c.out("dx", s.rows, s.cols, s.pad),
                                    s.cols + s.pad,
                                    weight ? c.sum("dw", s.cols) : nullptr,
                                    bias ? c.sum("db", s.cols) : nullptr};
      });
    }
}

}  // namespace
}  // namespace mimo::op_test
