#include "kernels/rms_norm.h"

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
                           {13, 37, 0},  {5, 256, 3}, {2, 8200, 0}, {1, 7, 5},    {0, 16, 0}};

TEST(CudaRmsNorm, Forward) {
  for (const Size& s : kSizes)
    check_cuda([&]<class T>(Case<T>& c) {
      return RmsNorm<T>{s.rows,
                        s.cols,
                        c.in("x", s.rows, s.cols, s.pad),
                        s.cols + s.pad,
                        c.in("w", 1, s.cols),
                        1e-5f,
                        c.out("y", s.rows, s.cols, s.pad),
                        s.cols + s.pad,
                        s.rows == 9 ? nullptr : c.acc_out("r", s.rows)};
    });
}

TEST(CudaRmsNorm, Backward) {
  for (const Size& s : kSizes)
    for (const bool frozen : {false, true}) {
      if (frozen && s.rows != 9 && s.rows != 13) continue;  // one of each kind
      check_cuda([&]<class T>(Case<T>& c) {
        return RmsNormBackward<T>{s.rows,
                                  s.cols,
                                  c.in("x", s.rows, s.cols, s.pad),
                                  s.cols + s.pad,
                                  c.in("w", 1, s.cols),
                                  c.acc_in("r", s.rows),
                                  c.in("dy", s.rows, s.cols),
                                  s.cols,
                                  c.out("dx", s.rows, s.cols, s.pad),
                                  s.cols + s.pad,
                                  frozen ? nullptr : c.sum("dw", s.cols)};
      });
    }
}

}  // namespace
}  // namespace mimo::op_test
