#include "kernels/rms_norm.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

TEST(CudaRmsNorm, Forward) {
  struct {
    int64_t rows;
    int cols;
    int64_t pad;
  } const shapes[] = {{3, 64, 0}, {2, 2056, 8}, {5, 37, 0}, {1, 7, 5}, {0, 16, 0}};
  for (const auto& s : shapes)
    check_cuda([&]<class T>(Case<T>& c) {
      return RmsNorm<T>{s.rows,
                        s.cols,
                        c.in("x", s.rows, s.cols, s.pad),
                        s.cols + s.pad,
                        c.in("w", 1, s.cols),
                        1e-5f,
                        c.out("y", s.rows, s.cols, s.pad),
                        s.cols + s.pad,
                        c.acc_out("r", s.rows)};
    });
}

}  // namespace
}  // namespace mimo::op_test
