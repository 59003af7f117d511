#include "tensor/pinned.h"

#include <algorithm>
#include <bit>
#include <deque>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "tensor/cuda.h"

namespace mimo {
namespace {

constexpr int64_t kSmallest = 4096;

struct Pool {
  std::mutex mutex;
  std::map<int64_t, std::deque<PinnedBlock*>> given_back;  // by size, the oldest first

  // Null where all that there is is still copied from and the host is not to wait.
  PinnedBlock* take(int64_t bytes, size_t most_waiting) {
    std::lock_guard lock(mutex);
    auto& blocks = given_back[bytes];
    auto found = std::find_if(blocks.begin(), blocks.end(), [](const PinnedBlock* b) { return b->free(); });
    if (found == blocks.end()) {
      if (blocks.empty() || blocks.size() < most_waiting) return nullptr;
      found = blocks.begin();
      (*found)->wait();
    }
    PinnedBlock* block = *found;
    blocks.erase(found);
    return block;
  }
  void give_back(PinnedBlock* block) {
    std::lock_guard lock(mutex);
    given_back[block->bytes()].push_back(block);
  }
};

Pool& pool() {
  static Pool* all = new Pool;  // never destroyed: the driver may be gone before it
  return *all;
}

}  // namespace

PinnedBlock::PinnedBlock(int64_t bytes)
    : data_(static_cast<char*>(cuda::allocate_pinned(bytes))), bytes_(bytes), copied_(nullptr) {
  if (!data_) throw std::runtime_error("out of pinned host memory: " + std::to_string(bytes) + " bytes");
}

void PinnedBlock::in_use(const Stream& stream) {
  if (!copied_) copied_ = cuda::create_event();
  cuda::record(copied_, stream.handle());
}

bool PinnedBlock::free() const { return !copied_ || cuda::done(copied_); }

void PinnedBlock::wait() const {
  if (copied_) cuda::synchronize_event(copied_);
}

std::shared_ptr<PinnedBlock> pinned_block(int64_t bytes, size_t most_waiting) {
  const auto size = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max(bytes, kSmallest))));
  PinnedBlock* block = pool().take(size, most_waiting);
  if (!block) block = new PinnedBlock(size);
  return {block, [](PinnedBlock* b) { pool().give_back(b); }};
}

}  // namespace mimo
