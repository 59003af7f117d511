// A caching allocator: freed blocks are kept for reuse by size class, and every byte is counted under a label
// (the module in hand), so that a run can say which module needs how much memory.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "tensor/device.h"

namespace mimo {

struct MemoryStatistics {
  int64_t current = 0, peak = 0;  // bytes in use by tensors
};

// Memory of one tensor or view family; returned to the allocator when the last handle goes.
struct Storage {
  void* data = nullptr;
  int64_t bytes = 0;
  Device device;
  int label = 0;
  ~Storage();
};

std::shared_ptr<Storage> allocate(int64_t bytes, Device device);

// While it lives, this thread's allocations count under the label.
class MemoryLabel {
 public:
  explicit MemoryLabel(const std::string& name);
  ~MemoryLabel();
  MemoryLabel(const MemoryLabel&) = delete;

 private:
  int before_;
};

std::map<std::string, MemoryStatistics> memory_statistics();
void reset_memory_peaks();
void release_cached_memory();

}  // namespace mimo
