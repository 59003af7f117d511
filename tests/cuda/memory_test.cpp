// The memory that the tests of kernels compute on.
#include "kernels/elementwise.h"
#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

TEST(CudaMemory, CopiesGoThereAndBack) {
  Buffer x(cuda_context(), 12);
  const std::vector<float> values{1, 2, 3};
  x.write(values.data());
  EXPECT_EQ(read(static_cast<const float*>(x.data()), 3), values);
  EXPECT_TRUE(read(static_cast<const float*>(x.data()), 0).empty());
}

// So that an input that nobody wrote shows in the result.
TEST(CudaMemory, IsNaNBeforeAWrite) {
  const Buffer x(cuda_context(), 32), y(cuda_context(), 32);
  run(cuda_context(), Copy<float>{.rows = 1,
                                  .cols = 8,
                                  .x = {static_cast<const float*>(x.data()), 8},
                                  .y = {static_cast<float*>(y.data()), 8}});
  synchronize();
  for (const float v : read(static_cast<const float*>(y.data()), 8)) EXPECT_TRUE(std::isnan(v));
}

}  // namespace
}  // namespace mimo::op_test
