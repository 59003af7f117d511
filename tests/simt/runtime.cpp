// The emulator's CUDA runtime: one device whose streams are done when they are given work.
#include <chrono>
#include <cstdlib>

#include "tensor/cuda.h"
#include "tests/simt/device_memory.h"

namespace mimo::cuda {
namespace {

struct Event {
  std::chrono::steady_clock::time_point at;
};

}  // namespace

int device_count() { return 1; }
std::string why_no_device() { return ""; }
DeviceInfo device_info(int) { return {"emulator", "", 2, 8, 0, simt::kDeviceMemory, "emulated"}; }
void use_device(int) {}

void* allocate_device(int64_t bytes, int) { return simt::allocate_device(bytes); }
void free_device(void* p, int) { simt::free_device(p); }
void* allocate_pinned(int64_t bytes) { return std::malloc(static_cast<size_t>(bytes)); }
void free_pinned(void* p) { std::free(p); }
void* create_stream(bool) { return new char; }
void destroy_stream(void* s) { delete static_cast<char*>(s); }
void synchronize(void*) {}
void copy(void* to, const void* from, int64_t bytes, void*) { simt::copy(to, from, bytes); }
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
