#include "kernels/reduce.h"

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

template <class T>
std::array<double, 2> sum_squares(const std::vector<std::vector<T>>& tensors) {
  std::vector<const T*> x;
  std::vector<int64_t> n;
  int64_t total = 0;
  for (const auto& t : tensors) {
    x.push_back(t.data());
    n.push_back(static_cast<int64_t>(t.size()));
    total += n.back();
  }
  std::array<double, 2> result{-1, -1};
  run_op(SumSquares<T>{.tensors = static_cast<int>(x.size()),
                       .total = total,
                       .x = x.data(),
                       .n = n.data(),
                       .result = result.data()});
  return result;
}

template <class T>
void check() {
  std::vector<std::vector<T>> tensors;
  double want = 0;
  int64_t count = 0;
  for (int64_t n : {0, 1, 77, 32768, 100001}) {
    tensors.emplace_back();
    for (double x : random_values(n, 5 + n)) tensors.back().push_back(T(acc_t<T>(x))), want += x * x, ++count;
  }
  // The squares are exact; n sums in double.
  const auto all = sum_squares(tensors);
  EXPECT_NEAR(all[0], want, double(count) * 0x1p-53 * want);
  EXPECT_EQ(all[1], 0);

  const double infinity = std::numeric_limits<double>::infinity();
  double left_out = 0;
  for (int64_t at : {0, 40000, 100000}) {
    T& x = tensors[4][at];
    left_out += double(x) * double(x);
    x = T(acc_t<T>(at == 0 ? infinity : at == 40000 ? -infinity : std::nan("")));
  }
  const auto finite = sum_squares(tensors);
  EXPECT_NEAR(finite[0], want - left_out, double(count) * 0x1p-53 * want);
  EXPECT_EQ(finite[1], 3);
}

TEST(SumSquares, EveryDtype) {
  check<float>();
  check<bf16>();
  check<double>();
}

TEST(SumSquares, Nothing) {
  EXPECT_EQ(sum_squares<float>({}), (std::array<double, 2>{0, 0}));
  EXPECT_EQ(sum_squares<float>({{}, {}}), (std::array<double, 2>{0, 0}));
}

TEST(SumSquares, LargeAndSmallFloats) {  // float squares would overflow or vanish
  EXPECT_EQ(sum_squares<float>({{3e38f}})[0], double(3e38f) * double(3e38f));
  EXPECT_EQ(sum_squares<float>({{1e-30f}})[0], double(1e-30f) * double(1e-30f));
}

TEST(SumSquares, SameBitsForAnyNumberOfThreads) {
  std::vector<std::vector<double>> tensors;
  for (int64_t n : {300000, 5, 70000}) tensors.push_back(random_values(n, n));
  for (auto& t : tensors)
    for (double& x : t) x = std::sqrt(std::fabs(x));  // squares that are not exact: the order matters
  const int before = thread_count();
  set_thread_count(1);
  const auto one = sum_squares(tensors);
  for (int threads : {2, 3}) {
    set_thread_count(threads);
    EXPECT_EQ(sum_squares(tensors), one);
  }
  set_thread_count(before);
}

}  // namespace
}  // namespace mimo::op_test
