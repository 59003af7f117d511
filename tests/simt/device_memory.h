// The emulator's device memory: closed to the host but while a kernel or a copy runs, so that a host that
// touches it is caught as on a GPU. A block ends where a page does that nobody may touch, to 256 bytes, which
// blocks begin on; under ASan it ends to the byte.
#pragma once
#include <cstdint>

namespace simt {

constexpr int64_t kDeviceMemory = int64_t{1} << 33;  // bytes there are

void* allocate_device(int64_t bytes);  // null where there is no more
void free_device(void*);
void copy(void* to, const void* from, int64_t bytes);  // between any two sides

// While one lives, all device memory may be touched: a kernel holds one.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
};

}  // namespace simt
