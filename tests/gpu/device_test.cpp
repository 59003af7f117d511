// tensor/cuda.h on a GPU.
#include <gtest/gtest.h>

#include <cstring>

#include "tensor/cuda.h"

namespace mimo::cuda {
namespace {

TEST(CudaRuntime, DescribesTheDevice) {
  const DeviceInfo info = device_info(0);
  EXPECT_FALSE(info.name.empty() || info.driver.empty() || info.pci.empty());
  EXPECT_GE(info.major, 7);
  EXPECT_GT(info.sms, 0);
  EXPECT_GT(info.memory, 0);
}

TEST(CudaRuntime, TooMuchMemoryIsNull) {
  EXPECT_EQ(allocate_device(int64_t{1} << 50, 0), nullptr);
  void* p = allocate_device(256, 0);  // and the error is not remembered
  EXPECT_NE(p, nullptr);
  free_device(p, 0);
}

// Host to device on one stream, back on another that waits for an event.
TEST(CudaRuntime, CopiesInOrder) {
  constexpr int64_t bytes = 1 << 24;
  auto *from = static_cast<unsigned char*>(allocate_pinned(bytes)),
       *to = static_cast<unsigned char*>(allocate_pinned(bytes));
  void* device = allocate_device(bytes, 0);
  for (int64_t i = 0; i < bytes; ++i) from[i] = static_cast<unsigned char>(i * 7);
  std::memset(to, 0, bytes);
  void *up = create_stream(), *down = create_stream(true), *start = create_event(true),
       *there = create_event(true);
  record(start, up);
  copy(device, from, bytes, up);
  record(there, up);
  wait(down, there);
  copy(to, device, bytes, down);
  synchronize(down);
  EXPECT_TRUE(done(there));
  EXPECT_GT(elapsed(start, there), 0);
  EXPECT_LT(elapsed(start, there), 10);
  EXPECT_EQ(std::memcmp(from, to, bytes), 0);
  for (void* e : {start, there}) destroy_event(e);
  for (void* s : {up, down}) destroy_stream(s);
  free_device(device, 0);
  free_pinned(from);
  free_pinned(to);
}

}  // namespace
}  // namespace mimo::cuda
