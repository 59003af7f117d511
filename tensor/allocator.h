// A caching allocator: freed blocks are kept for reuse, and every byte is counted under a label (the module
// in hand), so that a run can say which module needs how much memory.
//
// Each stream has its own pool: a block freed while work on it is still queued may be given out again at
// once, because what uses it next is queued behind. Whoever uses a block on another stream keeps it alive
// until the first stream waits for that work (a communicator's Work does).
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "tensor/device.h"

namespace mimo {

// Bytes are those of size classes: requests rounded up by at most an eighth.
struct MemoryStatistics {
  int64_t current = 0, peak = 0;  // bytes in use by tensors
};

// Memory of one tensor or view family; returned to the allocator when the last handle goes, by any thread.
struct Storage {
  void* data = nullptr;  // null: no bytes
  int64_t bytes = 0;     // counted under the label
  int64_t block = 0;     // what the block has, at least bytes
  Device device;
  void* stream = nullptr;  // its pool
  int label = 0;
  Storage() = default;
  Storage(const Storage&) = delete;
  ~Storage();
};

// At least `bytes` bytes on 64-byte boundaries, uninitialised, for use on this thread's stream if that is the
// device's. Throws std::runtime_error, with what is in use by label, when the device has no more.
std::shared_ptr<Storage> allocate(int64_t bytes, Device device);

// While it lives, this thread's allocations count under the label ("other" without one).
class MemoryLabel {
 public:
  explicit MemoryLabel(const std::string& name);
  ~MemoryLabel();
  MemoryLabel(const MemoryLabel&) = delete;

 private:
  int before_;
};
int memory_label();  // this thread's, a small number
std::string memory_label_name(int label);

std::map<std::string, MemoryStatistics> memory_statistics();  // by label
MemoryStatistics memory_total();  // of all labels; its peak is below the sum of theirs
int64_t cached_memory();          // bytes of free blocks kept for reuse
void reset_memory_peaks();        // to what is in use now

}  // namespace mimo
