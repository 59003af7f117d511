// A build without CUDA: no devices.
#include "tensor/cuda.h"

#include <stdexcept>

namespace mimo::cuda {
namespace {
[[noreturn]] void absent() { throw std::runtime_error("built without CUDA: no device"); }
}  // namespace

int device_count() { return 0; }
std::string why_no_device() { return "built without CUDA"; }
DeviceInfo device_info(int) { absent(); }
void use_device(int) { absent(); }
void* allocate_device(int64_t, int) { absent(); }
void free_device(void*, int) {}
void* allocate_pinned(int64_t) { absent(); }
void free_pinned(void*) {}
void* create_stream(bool) { absent(); }
void destroy_stream(void*) {}
void synchronize(void*) { absent(); }
void copy(void*, const void*, int64_t, void*) { absent(); }
void* create_event(bool) { absent(); }
void destroy_event(void*) {}
void record(void*, void*) { absent(); }
void wait(void*, void*) { absent(); }
bool done(void*) { absent(); }
void synchronize_event(void*) { absent(); }
double elapsed(void*, void*) { absent(); }
void begin_range(const std::string&) {}
void end_range() {}

}  // namespace mimo::cuda
