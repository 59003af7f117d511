// The emulator's CUDA runtime: one device whose streams are done when they are given work, and whose memory
// is closed to the host but while a kernel or a copy runs, so that a host that reads it is caught as on a
// GPU.
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>

#include "tensor/cuda.h"
#include "tests/simt/simt.h"

namespace mimo::cuda {
namespace {

constexpr int64_t kCapacity = int64_t{1} << 33, kPage = 4096;

// Device memory: whole pages cut from one range of addresses, free ones kept by size.
struct DeviceMemory {
  std::mutex mutex;
  char* base = nullptr;
  int64_t used = 0;
  std::map<void*, int64_t> sizes;
  std::multimap<int64_t, void*> free;
  bool is_open = false;

  void open(bool yes) {
    std::lock_guard lock(mutex);
    is_open = yes;
    if (used > 0) mprotect(base, static_cast<size_t>(used), yes ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
};
DeviceMemory& device_memory() {
  static DeviceMemory* m = new DeviceMemory;
  return *m;
}

void on_segv(int, siginfo_t* info, void*) {
  const char* at = static_cast<const char*>(info->si_addr);
  const DeviceMemory& m = device_memory();
  const bool device = at >= m.base && at < m.base + m.used;
  const char text[] = "error: the host touched device memory\n", other[] = "error: segmentation fault\n";
  [[maybe_unused]] const ssize_t n =
      device ? write(2, text, sizeof text - 1) : write(2, other, sizeof other - 1);
  signal(SIGSEGV, SIG_DFL);
  raise(SIGSEGV);
}

struct Event {
  std::chrono::steady_clock::time_point at;
};

}  // namespace

int device_count() { return 1; }
std::string why_no_device() { return ""; }
DeviceInfo device_info(int) { return {"emulator", "", 2, 8, 0, kCapacity, "emulated"}; }
void use_device(int) {}

void* allocate_device(int64_t bytes, int) {
  DeviceMemory& m = device_memory();
  std::lock_guard lock(m.mutex);
  if (!m.base) {
    void* p = mmap(nullptr, kCapacity, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    m.base = static_cast<char*>(p);
    struct sigaction action {};
    action.sa_sigaction = on_segv;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
    simt::set_device_memory([](bool yes) { device_memory().open(yes); });
  }
  const int64_t size = (bytes + kPage - 1) / kPage * kPage;
  if (const auto fit = m.free.lower_bound(size); fit != m.free.end() && fit->first == size) {
    void* p = fit->second;
    m.free.erase(fit);
    m.sizes[p] = size;
    return p;
  }
  if (size > kCapacity - m.used) return nullptr;
  void* p = m.base + m.used;
  m.used += size;
  m.sizes[p] = size;
  return p;
}
void free_device(void* p, int) {
  DeviceMemory& m = device_memory();
  std::lock_guard lock(m.mutex);
  const auto found = m.sizes.find(p);
  if (found == m.sizes.end()) return;
  m.free.emplace(found->second, p);
  m.sizes.erase(found);
}

void* allocate_pinned(int64_t bytes) { return std::malloc(static_cast<size_t>(bytes)); }
void free_pinned(void* p) { std::free(p); }
void* create_stream(bool) { return new char; }
void destroy_stream(void* s) { delete static_cast<char*>(s); }
void synchronize(void*) {}
void copy(void* to, const void* from, int64_t bytes, void*) {
  const simt::DeviceAccess access;
  std::memcpy(to, from, static_cast<size_t>(bytes));
}
void* create_event(bool) { return new Event; }
void destroy_event(void* e) { delete static_cast<Event*>(e); }
void record(void* e, void*) { static_cast<Event*>(e)->at = std::chrono::steady_clock::now(); }
void wait(void*, void*) {}
bool done(void*) { return true; }
void synchronize_event(void*) {}
double elapsed(void* from, void* to) {
  return std::chrono::duration<double>(static_cast<Event*>(to)->at - static_cast<Event*>(from)->at).count();
}
void begin_range(const std::string&) {}
void end_range() {}

}  // namespace mimo::cuda
