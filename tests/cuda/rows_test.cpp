#include "kernels/rows.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Table {
  std::vector<int32_t> rows;
  int64_t cols, pad;
  int64_t count() const { return static_cast<int64_t>(rows.size()); }
};
const Table shapes[] = {
    {{5, 0, 3, 11, 4, 1, 9, 10, 2}, 64, 0},  // nine warps in two blocks; one span
    {{2, 11, 7}, 1544, 8},                   // several spans, the last in part
    {{0, 4, 3}, 66, 2},                      // 4 bytes of bf16
    {{0, 4, 3}, 37, 0},                      // rows on no boundary
    {{6}, 24, 1},
    {{}, 16, 0},
};

TEST(CudaRows, Gather) {
  for (const Table& s : shapes)
    check_cuda([&]<class T>(Case<T>& c) {
      return GatherRows<T>{.count = s.count(),
                           .cols = s.cols,
                           .rows = c.ints(s.rows),
                           .x = c.in("x", 12, s.cols, s.pad),
                           .out = c.out("out", s.count(), s.cols, s.pad)};
    });
}

TEST(CudaRows, Scatter) {
  for (const Table& s : shapes)
    for (bool zeros : {false, true})
      check_cuda([&]<class T>(Case<T>& c) {
        const auto x = c.in("x", s.count(), s.cols, s.pad);
        return ScatterRows<T>{.count = s.count(),
                              .cols = s.cols,
                              .rows = c.ints(s.rows),
                              .x = zeros ? nullptr : x,
                              .out = c.inout("out", 12, s.cols, s.pad)};
      });
}

TEST(CudaRows, ScatterAdd) {
  for (const Table& s : shapes)
    check_cuda([&]<class T>(Case<T>& c) {
      return ScatterAddRows<T>{.count = s.count(),
                               .cols = s.cols,
                               .rows = c.ints(s.rows),
                               .x = c.in("x", s.count(), s.cols, s.pad),
                               .out = c.inout("out", 12, s.cols, s.pad)};
    });
}

}  // namespace
}  // namespace mimo::op_test
