// Host memory that devices copy from and to on their own. Pinning it takes milliseconds: blocks are kept for
// the whole process, and used again when the copies from them are done.
#pragma once
#include <cstdint>
#include <limits>
#include <memory>

#include "tensor/device.h"

namespace mimo {

class PinnedBlock {
 public:
  explicit PinnedBlock(int64_t bytes);  // throws std::runtime_error where there is no more
  PinnedBlock(const PinnedBlock&) = delete;
  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  // Copies from the block are queued: it is not used again before the stream has come so far.
  void in_use(const Stream&);
  bool free() const;
  void wait() const;

 private:
  char* data_;
  int64_t bytes_;
  void* copied_;  // an event, null until there is a copy
};

// At least so many bytes; given back with the pointer. Where `most_waiting` blocks of the size are still
// copied from, the host waits for the oldest of them instead of pinning another.
std::shared_ptr<PinnedBlock> pinned_block(int64_t bytes,
                                          size_t most_waiting = std::numeric_limits<size_t>::max());

}  // namespace mimo
