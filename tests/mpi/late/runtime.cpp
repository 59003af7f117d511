// A CUDA runtime for tests of what runs between streams and the host, without a device. It does queued work
// as late as it may: when the host waits for it, or asks whether it is done. Device memory cannot be touched
// by the host: only copies reach it, through a second mapping.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <stdexcept>

#include "tensor/cuda.h"

namespace mimo::cuda {
namespace {

struct Stream {
  std::deque<std::function<void()>> work;
  void step() {
    const std::function<void()> first = std::move(work.front());
    work.pop_front();
    first();
  }
};

struct Event {
  Stream* stream = nullptr;
  int recorded = 0, reached = 0;
  bool done(int version) const { return reached >= version; }
  void run_to(int version) {
    while (!done(version)) stream->step();
  }
};

Stream& stream_of(void* s) {
  if (!s) throw std::logic_error("the default stream is not used");
  return *static_cast<Stream*>(s);
}

struct Memory {
  char* shadow;
  size_t bytes;
};
std::map<const char*, Memory>& device_memory() {
  static std::map<const char*, Memory> all;
  return all;
}

// Where the host may touch it.
char* reach(const void* p) {
  const char* at = static_cast<const char*>(p);
  auto next = device_memory().upper_bound(at);
  if (next == device_memory().begin()) return const_cast<char*>(at);
  const auto& [base, memory] = *--next;
  return at < base + memory.bytes ? memory.shadow + (at - base) : const_cast<char*>(at);
}

}  // namespace

int device_count() { return 1; }
std::string why_no_device() { return ""; }
DeviceInfo device_info(int) { return {"late", "", 1, 0, 0, int64_t{1} << 30, "none"}; }
void use_device(int) {}

void* allocate_device(int64_t bytes, int) {
  const int file = memfd_create("device memory", 0);
  if (file < 0 || ftruncate(file, bytes) != 0) throw std::runtime_error("memfd_create");
  const auto map = [&](int access) {
    return static_cast<char*>(mmap(nullptr, static_cast<size_t>(bytes), access, MAP_SHARED, file, 0));
  };
  char* p = map(PROT_NONE);
  device_memory()[p] = {map(PROT_READ | PROT_WRITE), static_cast<size_t>(bytes)};
  close(file);
  return p;
}
void free_device(void* p, int) {
  const auto at = device_memory().find(static_cast<char*>(p));
  munmap(at->second.shadow, at->second.bytes);
  munmap(p, at->second.bytes);
  device_memory().erase(at);
}
void* allocate_pinned(int64_t bytes) {
  void* p = std::malloc(static_cast<size_t>(bytes));
  std::memset(p, 0xff, static_cast<size_t>(bytes));
  return p;
}
void free_pinned(void* p) { std::free(p); }

void* create_stream(bool) { return new Stream; }
void destroy_stream(void* s) { delete &stream_of(s); }
void synchronize(void* s) {
  while (!stream_of(s).work.empty()) stream_of(s).step();
}
void copy(void* to, const void* from, int64_t bytes, void* s) {
  stream_of(s).work.push_back([=] { std::memcpy(reach(to), reach(from), static_cast<size_t>(bytes)); });
}

void* create_event(bool) { return new Event; }
void destroy_event(void* e) { delete static_cast<Event*>(e); }
void record(void* e, void* s) {
  Event* event = static_cast<Event*>(e);
  event->stream = &stream_of(s);
  event->stream->work.push_back([event, version = ++event->recorded] { event->reached = version; });
}
void wait(void* s, void* e) {
  Event* event = static_cast<Event*>(e);
  stream_of(s).work.push_back([event, version = event->recorded] { event->run_to(version); });
}
bool done(void* e) {  // time passes
  Event* event = static_cast<Event*>(e);
  if (!event->done(event->recorded)) event->stream->step();
  return event->done(event->recorded);
}
void synchronize_event(void* e) { static_cast<Event*>(e)->run_to(static_cast<Event*>(e)->recorded); }
double elapsed(void*, void*) { return 0; }
void begin_range(const std::string&) {}
void end_range() {}

}  // namespace mimo::cuda
