// tensor/cuda.h over NVIDIA's runtime library, which is linked statically and finds the driver when it is
// first called.
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "tensor/cuda.h"

namespace mimo::cuda {
namespace {

// The runtime also keeps a call's error for whoever asks next; kernel launches do, and would blame
// themselves.
cudaError_t taken(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

void check(cudaError_t error, const char* call) {
  if (taken(error) != cudaSuccess)
    throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error) + " (" +
                             cudaGetErrorName(error) + ")");
}
#define CHECK(call, ...) check(call(__VA_ARGS__), #call)

// In destructors: says what went wrong and goes on, once, as after a failed kernel every call returns its
// error. Static ones may run after the runtime's own end.
void report(cudaError_t error, const char* call) {
  static std::atomic<cudaError_t> said = cudaErrorCudartUnloading;
  if (taken(error) != cudaSuccess && error != cudaErrorCudartUnloading && said.exchange(error) != error)
    std::fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(error));
}
#define REPORT(call, ...) report(call(__VA_ARGS__), #call)

cudaStream_t stream_of(void* handle) { return static_cast<cudaStream_t>(handle); }
cudaEvent_t event_of(void* handle) { return static_cast<cudaEvent_t>(handle); }

std::string version(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

// The version of CUDA that the driver supports; 0 where there is no driver.
int driver_version() {
  int v = 0;
  return taken(cudaDriverGetVersion(&v)) == cudaSuccess ? v : 0;
}

// This thread on another device, for a while.
class OnDevice {
 public:
  explicit OnDevice(int device) : device_(device) {
    CHECK(cudaGetDevice, &before_);
    if (device_ != before_) CHECK(cudaSetDevice, device_);
  }
  ~OnDevice() {
    if (device_ != before_) REPORT(cudaSetDevice, before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int device_, before_ = 0;
};

// 0 bytes are an allocation like any other, not one that failed.
size_t at_least_one(int64_t bytes) { return static_cast<size_t>(bytes > 0 ? bytes : 1); }

}  // namespace

int device_count() {
  int n = 0;
  return taken(cudaGetDeviceCount(&n)) == cudaSuccess ? n : 0;
}

std::string why_no_device() {
  int n = 0;
  const cudaError_t error = taken(cudaGetDeviceCount(&n));
  if (error == cudaSuccess) return n > 0 ? "" : "no CUDA device";
  const std::string text = cudaGetErrorString(error);
  const int driver = driver_version();
  if (driver == 0)  // the runtime then calls it insufficient
    return "no CUDA driver" + (error == cudaErrorInsufficientDriver ? "" : " (" + text + ")");
  if (error == cudaErrorInsufficientDriver)
    return "the CUDA driver is too old: it supports CUDA " + version(driver) + ", this program needs " +
           version(CUDART_VERSION) + " (" + text + ")";
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (error == cudaErrorNoDevice)
    return "no CUDA device (" + text + (visible ? std::string("; CUDA_VISIBLE_DEVICES=") + visible : "") +
           ")";
  return "cudaGetDeviceCount: " + text;
}

DeviceInfo device_info(int device) {
  cudaDeviceProp p{};
  CHECK(cudaGetDeviceProperties, &p, device);
  char pci[32] = "";
  CHECK(cudaDeviceGetPCIBusId, pci, sizeof pci, device);
  std::string driver;  // the kernel module's own version, where Linux shows it
  std::ifstream("/sys/module/nvidia/version") >> driver;
  driver += (driver.empty() ? "CUDA " : ", CUDA ") + version(driver_version());
  return {p.name, driver, p.multiProcessorCount, p.major, p.minor, static_cast<int64_t>(p.totalGlobalMem),
          pci};
}

void use_device(int device) { CHECK(cudaSetDevice, device); }

void* allocate_device(int64_t bytes, int device) {
  const OnDevice here(device);
  void* p = nullptr;
  const cudaError_t error = taken(cudaMalloc(&p, at_least_one(bytes)));
  if (error == cudaErrorMemoryAllocation) return nullptr;
  check(error, "cudaMalloc");
  return p;
}
void free_device(void* p, int) { REPORT(cudaFree, p); }  // the address tells the device

void* allocate_pinned(int64_t bytes) {
  void* p = nullptr;
  const cudaError_t error = taken(cudaHostAlloc(&p, at_least_one(bytes), cudaHostAllocPortable));
  if (error == cudaErrorMemoryAllocation) return nullptr;
  check(error, "cudaHostAlloc");
  return p;
}
void free_pinned(void* p) { REPORT(cudaFreeHost, p); }

void* create_stream(bool high) {
  int least = 0, greatest = 0;
  CHECK(cudaDeviceGetStreamPriorityRange, &least, &greatest);
  cudaStream_t stream = nullptr;  // one that the legacy default stream does not wait for
  CHECK(cudaStreamCreateWithPriority, &stream, cudaStreamNonBlocking, high ? greatest : least);
  return stream;
}
void destroy_stream(void* stream) {
  if (stream) REPORT(cudaStreamDestroy, stream_of(stream));
}
void synchronize(void* stream) { CHECK(cudaStreamSynchronize, stream_of(stream)); }

void copy(void* to, const void* from, int64_t bytes, void* stream) {
  if (bytes > 0)
    CHECK(cudaMemcpyAsync, to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream_of(stream));
}

void* create_event(bool timing) {
  cudaEvent_t event = nullptr;
  CHECK(cudaEventCreateWithFlags, &event, timing ? cudaEventDefault : cudaEventDisableTiming);
  return event;
}
void destroy_event(void* event) {
  if (event) REPORT(cudaEventDestroy, event_of(event));
}
void record(void* event, void* stream) { CHECK(cudaEventRecord, event_of(event), stream_of(stream)); }
void wait(void* stream, void* event) { CHECK(cudaStreamWaitEvent, stream_of(stream), event_of(event), 0); }
bool done(void* event) {
  const cudaError_t error = taken(cudaEventQuery(event_of(event)));
  if (error == cudaErrorNotReady) return false;
  check(error, "cudaEventQuery");
  return true;
}
void synchronize_event(void* event) { CHECK(cudaEventSynchronize, event_of(event)); }
double elapsed(void* from, void* to) {
  float milliseconds = 0;
  CHECK(cudaEventElapsedTime, &milliseconds, event_of(from), event_of(to));
  return milliseconds * 1e-3;
}

}  // namespace mimo::cuda
