// tensor/cuda.h over NVIDIA's runtime says why there is no device, and every call which it was.
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tensor/cuda.h"

namespace mimo::cuda {
namespace {

TEST(CudaRuntime, NoDeviceHasAReason) {
  EXPECT_EQ(device_count() == 0, !why_no_device().empty());
  if (device_count() > 0) return;
  EXPECT_TRUE(why_no_device().starts_with("no CUDA d") || why_no_device().starts_with("the CUDA driver"))
      << why_no_device();
  for (const auto& call : std::vector<std::pair<const char*, void (*)()>>{
           {"cudaSetDevice", [] { use_device(0); }},
           {"cudaGetDeviceProperties", [] { device_info(0); }},
           {"cudaHostAlloc", [] { allocate_pinned(64); }},
           {"cudaEventCreateWithFlags", [] { create_event(); }}}) {
    try {
      call.second();
      ADD_FAILURE() << call.first << " passed without a device";
    } catch (const std::runtime_error& e) {
      EXPECT_TRUE(std::string(e.what()).starts_with(call.first)) << e.what();
    }
  }
}

TEST(CudaRuntime, DestructorsRepeatNoError) {
  if (device_count() > 0) return;
  testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) free_device(&i, 0);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(said.starts_with("cudaFree: ")) << said;
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
}

}  // namespace
}  // namespace mimo::cuda
