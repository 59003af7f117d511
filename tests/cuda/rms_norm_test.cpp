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
                           {13, 37, 0},  {5, 256, 3}, {1, 8200, 0}, {1, 7, 5},    {0, 16, 0}};

template <class T>
RmsNormInputs<T> inputs(Case<T>& c, const Size& s) {
  return {.rows = s.rows, .cols = s.cols, .x = c.in("x", s.rows, s.cols, s.pad), .w = c.in("w", 1, s.cols)};
}

TEST(CudaRmsNorm, Forward) {
  for (const Size& s : kSizes)
    check_cuda([&]<class T>(Case<T>& c) {
      return RmsNorm<T>{.in = inputs(c, s),
                        .eps = 1e-5f,
                        .y = c.out("y", s.rows, s.cols, s.pad),
                        .r = s.rows == 9 ? nullptr : c.acc_out("r", s.rows)};
    });
}

TEST(CudaRmsNorm, Backward) {
  for (const Size& s : kSizes)
    for (const bool frozen : {false, true}) {
      if (frozen && s.rows != 9 && s.rows != 13) continue;  // one of each kind
      check_cuda([&]<class T>(Case<T>& c) {
        return RmsNormBackward<T>{.in = inputs(c, s),
                                  .r = c.acc_in("r", s.rows),
                                  .dy = c.in("dy", s.rows, s.cols),
                                  .dx = c.out("dx", s.rows, s.cols, s.pad),
                                  .dw = frozen ? nullptr : c.sum("dw", s.cols)};
      });
    }
}

}  // namespace
}  // namespace mimo::op_test
