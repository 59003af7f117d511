// The CUDA runtime as far as the house needs it. tensor/cuda/ is the real one, tests/simt/runtime.cpp the
// emulator's, tensor/no_cuda.cpp that of a build without CUDA, where there are 0 devices and all else throws.
#pragma once
#include <cstdint>
#include <string>

namespace mimo::cuda {

int device_count();
// Why there are none: "built without CUDA", "no CUDA driver", ...
std::string why_no_device();

struct DeviceInfo {
  std::string name, driver;
  int sms = 0, major = 0, minor = 0;
  int64_t memory = 0;  // bytes
  std::string pci;     // tells devices of a machine apart
};
DeviceInfo device_info(int device);
void use_device(int device);  // of this thread, from now on

// Device memory, and host memory that copies run from and to on their own. Null where there is no more.
void* allocate_device(int64_t bytes, int device);
void free_device(void*, int device);
void* allocate_pinned(int64_t bytes);
void free_pinned(void*);

// Streams and events are handles; work on a stream runs in order. `high`: before other streams' work.
void* create_stream(bool high = false);
void destroy_stream(void* stream);
void synchronize(void* stream);
// Between host and device in any direction, queued; host memory should be pinned.
void copy(void* to, const void* from, int64_t bytes, void* stream);

void* create_event(bool timing = false);
void destroy_event(void* event);
void record(void* event, void* stream);
void wait(void* stream, void* event);  // work queued on the stream from now on runs after the event
bool done(void* event);
void synchronize_event(void* event);
double elapsed(void* from, void* to);  // seconds; both made with timing

// A named span in the traces of NVIDIA's profilers (NVTX); spans of a thread nest.
void begin_range(const std::string& name);
void end_range();

}  // namespace mimo::cuda
