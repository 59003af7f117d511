#include "tensor/transfer.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <stdexcept>

#include "tensor/cuda.h"

namespace mimo {
namespace {

constexpr int64_t kBlock = int64_t{4} << 20, kBlocks = 16, kAlign = 64;  // bytes; blocks of a stream at most

char* pinned() {
  char* data = static_cast<char*>(cuda::allocate_pinned(kBlock));
  if (!data) throw std::runtime_error("out of pinned host memory");
  return data;
}

// Host memory that a stream copies from. Uploads fill a block one behind the other; a full one is filled
// again when the stream has read it.
class Staging {
 public:
  char* room(int64_t bytes, const Stream& stream) {
    if (!current_ || used_ + bytes > kBlock) {
      if (current_) full_.push_back({current_, Event(stream)});
      current_ = next();
      used_ = 0;
    }
    char* p = current_ + used_;
    used_ += (bytes + kAlign - 1) / kAlign * kAlign;
    return p;
  }

 private:
  struct Full {
    char* data;
    Event read;
  };
  char* next() {
    if (full_.empty() || (!full_.front().read.passed() && static_cast<int64_t>(full_.size()) < kBlocks))
      return pinned();
    const Full oldest = full_.front();
    full_.pop_front();
    oldest.read.synchronize();
    return oldest.data;
  }
  char* current_ = nullptr;
  int64_t used_ = 0;
  std::deque<Full> full_;
};

struct AllStaging {
  std::mutex mutex;
  std::map<void*, Staging> of_stream;
  char* for_reads = nullptr;
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
  std::lock_guard lock(staging().mutex);
  char*& block = staging().for_reads;
  if (!block) block = pinned();
  for (int64_t at = 0; at < bytes; at += kBlock) {
    const int64_t n = std::min(kBlock, bytes - at);
    cuda::copy(block, static_cast<const char*>(device) + at, n, stream.handle());
    Event(stream).synchronize();
    std::memcpy(static_cast<char*>(host) + at, block, static_cast<size_t>(n));
  }
}

}  // namespace mimo
