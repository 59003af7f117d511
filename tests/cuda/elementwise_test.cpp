#include "kernels/elementwise.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Size {
  int64_t rows, cols, pad;
};
// Rows end to end and apart, whole blocks and rests, on 16-byte boundaries and off them.
constexpr Size kSizes[] = {{3, 3000, 0}, {1, 17001, 0}, {70, 128, 8}, {300, 13, 3},
                           {5, 13, 11},  {7, 9, 0},     {0, 8, 0},    {3, 0, 0}};

TEST(CudaElementwise, Fill) {
  for (const Size& s : kSizes)
    check_cuda([&]<class T>(Case<T>& c) {
      return Fill<T>{
          .rows = s.rows, .cols = s.cols, .y = c.out("y", s.rows, s.cols, s.pad), .value = acc_t<T>(-0.3f)};
    });
}

TEST(CudaElementwise, Add) {
  for (const Size& s : kSizes) {
    check_cuda([&]<class T>(Case<T>& c) {
      return Add<T>{.rows = s.rows,
                    .cols = s.cols,
                    .a = c.in("a", s.rows, s.cols, s.pad),
                    .b = c.in("b", s.rows, s.cols),
                    .y = c.out("y", s.rows, s.cols, s.pad)};
    });
    check_cuda([&]<class T>(Case<T>& c) {  // a bias, in place
      const auto y = c.inout("y", s.rows, s.cols, s.pad);
      return Add<T>{.rows = s.rows, .cols = s.cols, .a = y, .b = {c.in("b", 1, s.cols), 0}, .y = y};
    });
    check_cuda([&]<class T>(Case<T>& c) {
      const auto y = c.inout("y", s.rows, s.cols, s.pad);
      return Add<T>{.rows = s.rows, .cols = s.cols, .a = c.in("a", s.rows, s.cols, s.pad), .b = y, .y = y};
    });
  }
}

TEST(CudaElementwise, Copy) {
  for (const Size& s : kSizes) {
    check_cuda([&]<class T>(Case<T>& c) {
      return Copy<T>{.rows = s.rows,
                     .cols = s.cols,
                     .x = c.in("x", s.rows, s.cols),
                     .y = c.out("y", s.rows, s.cols, s.pad)};
    });
    check_cuda([&]<class T>(Case<T>& c) {  // one row to all
      return Copy<T>{.rows = s.rows,
                     .cols = s.cols,
                     .x = {c.in("x", 1, s.cols), 0},
                     .y = c.out("y", s.rows, s.cols, s.pad)};
    });
  }
}

TEST(CudaElementwise, CopyKeepsBits) {
  std::vector<bf16> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<uint16_t>(i);
  for (const int64_t from : {0, 1}) {
    Case<bf16> c(cuda_context());
    const bf16* x = c.data(all) + from;
    bf16* y = c.data(std::vector<bf16>(all.size(), bf16(0.f))) + from;
    const int64_t n = 65536 - from;
    run(cuda_context(), Copy<bf16>{.rows = 1, .cols = n, .x = {x, n}, .y = {y, n}});
    synchronize();
    EXPECT_EQ(std::memcmp(read(y, n).data(), &all[static_cast<size_t>(from)], 2 * n), 0);
  }
}

// One-dimensional ops: on a 16-byte boundary (offset 0) and off it.
template <class Build>
void check_lengths(const Build& build) {
  for (const int64_t n : {0, 1, 7, 64, 17001})
    for (const int64_t offset : {0, 3}) check_cuda([&]<class T>(Case<T>& c) { return build(c, n, offset); });
}

TEST(CudaElementwise, Scale) {
  check_lengths([]<class T>(Case<T>& c, int64_t n, int64_t offset) {
    return Scale<T>{
        .n = n, .x = c.inout("x", 1, n + offset) + offset, .factor = c.data(std::vector<double>{0.3})};
  });
}

TEST(CudaElementwise, ToAcc) {
  for (const bool accumulate : {false, true})
    check_lengths([&]<class T>(Case<T>& c, int64_t n, int64_t offset) {
      return ToAcc<T>{.n = n,
                      .x = c.in("x", 1, n + offset) + offset,
                      .y = c.sum("y", 1, n + offset) + offset,
                      .accumulate = accumulate};
    });
}

TEST(CudaElementwise, FromAcc) {
  check_lengths([]<class T>(Case<T>& c, int64_t n, int64_t offset) {
    return FromAcc<T>{.n = n,
                      .x = c.acc_in("x", 1, n + offset, random_values(n + offset, 1)) + offset,
                      .y = c.out("y", 1, n + offset) + offset};
  });
}

// Every upper half of a float before the lower halves where rounding changes: as the CPU, bit for bit.
TEST(CudaElementwise, FromAccRounds) {
  std::vector<float> x, nans;
  for (uint32_t high = 0; high < 65536; ++high)
    for (const uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float v = __builtin_bit_cast(float, high << 16 | low);
      (std::isnan(v) ? nans : x).push_back(v);
    }
  check_cuda([&]<class T>(Case<T>& c) {
    const std::vector<acc_t<T>> wide(x.begin(), x.end());
    return FromAcc<T>{
        .n = static_cast<int64_t>(x.size()), .x = c.data(wide), .y = c.exact("y", std::vector<T>(x.size()))};
  });
  // A NaN stays one, and quiet; its other bits are the machine's.
  const int64_t n = static_cast<int64_t>(nans.size());
  Case<bf16> c(cuda_context());
  bf16* y = c.data(std::vector<bf16>(nans.size(), bf16(0.f)));
  run(cuda_context(), FromAcc<bf16>{.n = n, .x = c.data(nans), .y = y});
  synchronize();
  for (const bf16 v : read(y, n)) ASSERT_EQ(v.bits & 0x7fc0, 0x7fc0);
}

TEST(CudaElementwise, AddColumnSums) {
  struct {
    int64_t rows;
    int cols;
    int64_t pad;
  } const sizes[] = {{0, 8, 0},     {3, 0, 0},    {1, 1, 0},    {61, 37, 3},  {100, 70, 0},
                     {600, 264, 8}, {1300, 8, 0}, {777, 37, 0}, {1025, 64, 1}};
  for (const auto& s : sizes)
    check_cuda([&]<class T>(Case<T>& c) {
      return AddColumnSums<T>{
          .rows = s.rows, .cols = s.cols, .x = c.in("x", s.rows, s.cols, s.pad), .y = c.sum("y", s.cols)};
    });
}

}  // namespace
}  // namespace mimo::op_test
