#include "kernels/reduce.h"

#include <functional>

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

// Tensors of these lengths, `offset` elements behind a 16-byte boundary.
template <class T>
SumSquares<T> sum_squares(Case<T>& c, const std::vector<int64_t>& sizes, int64_t offset, double* result,
                          const std::function<double(int64_t)>& value) {
  std::vector<const T*> x;
  int64_t total = 0;
  for (const int64_t n : sizes) {
    std::vector<T> v;
    for (int64_t i = -offset; i < n; ++i) v.push_back(T(static_cast<acc_t<T>>(value(total + i))));
    x.push_back(c.data(v) + offset);
    total += n;
  }
  return {.tensors = static_cast<int>(sizes.size()),
          .total = total,
          .x = c.data(x),
          .n = c.data(sizes),
          .result = result};
}

// The squares and their sums are exact in double, so that any order gives the CPU's bits.
double exact_value(int64_t i) { return static_cast<double>((i * 37 % 255) - 127) / 128; }

TEST(CudaSumSquares, ManyTensors) {
  std::vector<int64_t> sizes = {0, 1, 77, 0, 16384, 140001, 9000};
  for (int i = 0; i < 70; ++i) sizes.push_back(i % 5 == 0 ? 0 : 3 * i);
  sizes.push_back(20000);
  for (const int64_t offset : {0, 1})
    check_cuda([&]<class T>(Case<T>& c) {
      return sum_squares<T>(c, sizes, offset, c.exact("result", std::vector<double>{-1, -1}), exact_value);
    });
}

TEST(CudaSumSquares, Nothing) {
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{}, {0, 0}})
    check_cuda([&]<class T>(Case<T>& c) {
      return sum_squares<T>(c, sizes, 0, c.exact("result", std::vector<double>{-1, -1}), exact_value);
    });
}

TEST(CudaSumSquares, LeavesOutWhatIsNotFinite) {
  check_cuda([&]<class T>(Case<T>& c) {
    return sum_squares<T>(c, {5, 30000}, 0, c.exact("result", std::vector<double>{-1, -1}), [](int64_t i) {
      return i == 3 ? INFINITY : i == 7000 ? -INFINITY : i == 30003 ? NAN : exact_value(i);
    });
  });
}

TEST(CudaSumSquares, LargeAndSmallFloats) {  // whose squares are none
  for (const float x : {3e38f, 1e-30f})
    check_cuda([&]<class T>(Case<T>& c) {
      return sum_squares<T>(c, {1}, 0, c.exact("result", std::vector<double>{-1, -1}),
                            [&](int64_t) { return rounded(x); });
    });
}

TEST(CudaSumSquares, OneOrderOfSums) {
  double first = 0;
  for (size_t way = 0; way < ways().size(); ++way) {
    set_way(static_cast<int>(way));
    Case<float> c(cuda_context());
    double* result = c.data(std::vector<double>{-1, -1});
    double want = 0;
    const auto op = sum_squares<float>(c, {300, 70000, 5}, 0, result, [&](int64_t i) {
      const float x = std::sqrt(static_cast<float>(i + 1));
      want += static_cast<double>(x) * static_cast<double>(x);
      return static_cast<double>(x);
    });
    run_with_scratch(cuda_context(), op);
    const double have = read(result, 1)[0];
    EXPECT_NEAR(have, want, 70305 * 0x1p-53 * want);
    if (way == 0) first = have;
    EXPECT_EQ(have, first);  // of no function that errs
  }
  set_way(0);
}

}  // namespace
}  // namespace mimo::op_test
