// No kernel goes untested: after all tests, every one that some launch names has run.
#include <gtest/gtest.h>

#include "kernels/cuda/registry.h"

namespace mimo::op_test {
namespace {

class EveryKernelRan : public testing::Environment {
  void TearDown() override {
    if (testing::GTEST_FLAG(filter) != "*") return;
    for (const cuda::RegisteredKernel* kernel : cuda::registered_kernels())
      EXPECT_GT(kernel->launches, 0) << "never launched: " << kernel->name;
  }
};

const auto* const kEveryKernelRan = testing::AddGlobalTestEnvironment(new EveryKernelRan);

}  // namespace
}  // namespace mimo::op_test
