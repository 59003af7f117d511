#include "tests/simt/device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <map>
#include <mutex>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace simt {
namespace {

constexpr int64_t kPage = 4096, kAlignment = 256;
constexpr int64_t kSpare = int64_t{1} << 28;  // bytes kept for blocks to come

int64_t rounded_up(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }

struct Block {
  char* pages;  // between two that are never open
  int64_t size;
  int open = 0;  // accesses to it alone
};

struct DeviceMemory {
  std::mutex mutex;
  std::map<void*, Block> blocks;
  std::multimap<int64_t, char*> spare;  // closed pages by their size: fresh ones cost more than most kernels
  int64_t used = 0, spared = 0;
  int open = 0;  // accesses to all blocks
};
DeviceMemory& memory() {
  static DeviceMemory* m = new DeviceMemory;
  return *m;
}

void protect(const Block& b) {
  const bool open = b.open + memory().open > 0;
  mprotect(b.pages, static_cast<size_t>(b.size), open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

// Says what was touched (it may not lock or allocate), then lets the fault end the program.
void on_segv(int, siginfo_t* info, void*) {
  const char* at = static_cast<const char*>(info->si_addr);
  const char host[] = "error: the host touched device memory\n",
             outside[] = "error: a kernel or a copy left the device memory it may touch\n",
             other[] = "error: segmentation fault\n";
  bool near = false, open = memory().open > 0;
  for (const auto& [p, b] : memory().blocks) {
    near |= at >= b.pages - kPage && at < b.pages + b.size + kPage;
    open |= b.open > 0;
  }
  const auto say = [](const char* text, size_t n) { [[maybe_unused]] const ssize_t r = write(2, text, n); };
  if (!near)
    say(other, sizeof other - 1);
  else if (open)
    say(outside, sizeof outside - 1);
  else
    say(host, sizeof host - 1);
  signal(SIGSEGV, SIG_DFL);
  raise(SIGSEGV);
}
void catch_segv() {
  [[maybe_unused]] static const bool caught = [] {
    struct sigaction action {};
    action.sa_sigaction = on_segv;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGSEGV, &action, nullptr) == 0;
  }();
}

}  // namespace

void* allocate_device(int64_t bytes) {
  catch_segv();
  DeviceMemory& m = memory();
  const std::lock_guard lock(m.mutex);
  const int64_t size = rounded_up(std::max<int64_t>(bytes, 1), kPage);
  if (size > kDeviceMemory - m.used) return nullptr;
  Block block{nullptr, size};
  if (const auto found = m.spare.find(size); found != m.spare.end()) {
    block.pages = found->second;
    m.spare.erase(found);
    m.spared -= size;
  } else {
    void* p = mmap(nullptr, static_cast<size_t>(size + 2 * kPage), PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    block.pages = static_cast<char*>(p) + kPage;
  }
  if (m.open > 0) protect(block);
  char* at = block.pages + size - rounded_up(std::max<int64_t>(bytes, 1), kAlignment);
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(block.pages - kPage, static_cast<size_t>(size + 2 * kPage));
  __asan_unpoison_memory_region(at, static_cast<size_t>(bytes));
#endif
  m.blocks[at] = block;
  m.used += size;
  return at;
}

void free_device(void* p) {
  DeviceMemory& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto found = m.blocks.find(p);
  if (found == m.blocks.end()) return;
  const Block block = found->second;
  m.blocks.erase(found);
  m.used -= block.size;
  const bool keep = m.spared + block.size <= kSpare;
#if defined(__SANITIZE_ADDRESS__)
  if (keep)
    __asan_poison_memory_region(block.pages, static_cast<size_t>(block.size));
  else
    __asan_unpoison_memory_region(block.pages - kPage, static_cast<size_t>(block.size + 2 * kPage));
#endif
  if (!keep) {
    munmap(block.pages - kPage, static_cast<size_t>(block.size + 2 * kPage));
    return;
  }
  mprotect(block.pages, static_cast<size_t>(block.size), PROT_NONE);
  m.spare.emplace(block.size, block.pages);
  m.spared += block.size;
}

void copy(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  DeviceMemory& m = memory();
  const auto change = [&](const void* p, int by) {
    const std::lock_guard lock(m.mutex);
    auto block = m.blocks.upper_bound(const_cast<void*>(p));
    if (block == m.blocks.begin() ||
        static_cast<const char*>(p) >= (--block)->second.pages + block->second.size)
      return;  // the host's
    block->second.open += by;
    protect(block->second);
  };
  change(to, 1), change(from, 1);
  std::memcpy(to, from, static_cast<size_t>(bytes));
  change(to, -1), change(from, -1);
}

DeviceAccess::DeviceAccess() {
  DeviceMemory& m = memory();
  const std::lock_guard lock(m.mutex);
  if (++m.open > 1) return;
  for (const auto& [p, block] : m.blocks) protect(block);
}
DeviceAccess::~DeviceAccess() {
  DeviceMemory& m = memory();
  const std::lock_guard lock(m.mutex);
  if (--m.open > 0) return;
  for (const auto& [p, block] : m.blocks) protect(block);
}

}  // namespace simt
