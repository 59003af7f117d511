#include "tensor/transfer.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <mutex>
#include <stdexcept>

#include "tensor/cuda.h"

namespace mimo {
namespace {

constexpr int64_t kChunk = int64_t{4} << 20, kBlocks = 16;  // bytes of a pinned block; blocks at most

struct Block {
  char* data = nullptr;
  Event busy;  // until its copy has run
};

// Blocks are taken from the front and put back behind: the front one is the first to be free again.
struct Staging {
  std::mutex mutex;
  std::deque<Block> blocks;
  int64_t made = 0;

  Block take() {
    std::lock_guard lock(mutex);
    if (!blocks.empty() && (blocks.front().busy.passed() || made >= kBlocks)) {
      Block b = blocks.front();
      blocks.pop_front();
      b.busy.synchronize();
      return b;
    }
    Block b{static_cast<char*>(cuda::allocate_pinned(kChunk)), {}};
    if (!b.data) throw std::runtime_error("out of pinned host memory");
    ++made;
    return b;
  }
  void give_back(Block b) {
    std::lock_guard lock(mutex);
    blocks.push_back(std::move(b));
  }
};

Staging& staging() {
  static Staging* s = new Staging;  // never destroyed: the driver may be gone before it
  return *s;
}

}  // namespace

void upload(void* device, const void* host, int64_t bytes, const Stream& stream) {
  for (int64_t at = 0; at < bytes; at += kChunk) {
    const int64_t n = std::min(kChunk, bytes - at);
    Block b = staging().take();
    std::memcpy(b.data, static_cast<const char*>(host) + at, static_cast<size_t>(n));
    cuda::copy(static_cast<char*>(device) + at, b.data, n, stream.handle());
    b.busy = Event(stream);
    staging().give_back(std::move(b));
  }
}

void download(void* host, const void* device, int64_t bytes, const Stream& stream) {
  for (int64_t at = 0; at < bytes; at += kChunk) {
    const int64_t n = std::min(kChunk, bytes - at);
    Block b = staging().take();
    cuda::copy(b.data, static_cast<const char*>(device) + at, n, stream.handle());
    Event(stream).synchronize();
    std::memcpy(static_cast<char*>(host) + at, b.data, static_cast<size_t>(n));
    b.busy = {};
    staging().give_back(std::move(b));
  }
}

}  // namespace mimo
