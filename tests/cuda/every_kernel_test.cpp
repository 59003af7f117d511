// No kernel goes untested: after all tests, every one that some launch names has run.
#include <gtest/gtest.h>

#include <map>
#include <string_view>

#include "kernels/cuda/registry.h"

namespace mimo::op_test {
namespace {

class EveryKernelRan : public testing::Environment {
  void TearDown() override {
    if (testing::GTEST_FLAG(filter) != "*") return;
    // By name: a kernel that several files launch is registered by each.
    std::map<std::string_view, int64_t> launches;
    for (const cuda::RegisteredKernel* kernel : cuda::registered_kernels())
      launches[kernel->name] += kernel->launches;
    for (const auto& [name, n] : launches) EXPECT_GT(n, 0) << "never launched: " << name;
  }
};

const auto* const kEveryKernelRan = testing::AddGlobalTestEnvironment(new EveryKernelRan);

}  // namespace
}  // namespace mimo::op_test
