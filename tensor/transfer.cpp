#include "tensor/transfer.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "tensor/cuda.h"
#include "tensor/pinned.h"

namespace mimo {
namespace {

constexpr int64_t kBlock = int64_t{4} << 20, kAlign = 64;  // bytes
constexpr size_t kMostWaiting = 16;                        // blocks

// Uploads fill a block one behind the other; a full one is filled again when the stream has read it.
class Staging {
 public:
  char* room(int64_t bytes, const Stream& stream) {
    if (!block_ || used_ + bytes > kBlock) {
      if (block_) block_->in_use(stream);
      block_ = pinned_block(kBlock, kMostWaiting);
      used_ = 0;
    }
    char* p = block_->data() + used_;
    used_ += (bytes + kAlign - 1) / kAlign * kAlign;
    return p;
  }

 private:
  std::shared_ptr<PinnedBlock> block_;
  int64_t used_ = 0;
};

struct AllStaging {
  std::mutex mutex;
  std::map<void*, Staging> of_stream;
};
AllStaging& staging() {
  static AllStaging* s = new AllStaging;  // never destroyed: the driver may be gone before it
  return *s;
}

}  // namespace

void upload(void* device, const void* host, int64_t bytes, const Stream& stream) {
  std::lock_guard lock(staging().mutex);
  Staging& memory = staging().of_stream[stream.handle()];
  for (int64_t at = 0; at < bytes; at += kBlock) {
    const int64_t n = std::min(kBlock, bytes - at);
    char* room = memory.room(n, stream);
    std::memcpy(room, static_cast<const char*>(host) + at, static_cast<size_t>(n));
    cuda::copy(static_cast<char*>(device) + at, room, n, stream.handle());
  }
}

void download(void* host, const void* device, int64_t bytes, const Stream& stream) {
  const std::shared_ptr<PinnedBlock> block = pinned_block(kBlock);
  for (int64_t at = 0; at < bytes; at += kBlock) {
    const int64_t n = std::min(kBlock, bytes - at);
    cuda::copy(block->data(), static_cast<const char*>(device) + at, n, stream.handle());
    cuda::synchronize(stream.handle());
    std::memcpy(static_cast<char*>(host) + at, block->data(), static_cast<size_t>(n));
  }
}

}  // namespace mimo
