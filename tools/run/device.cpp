// Which device a rank computes on.
#include "parallel/agreement.h"
#include "parallel/device_world.h"
#include "tensor/cuda.h"
#include "tools/run/job.h"

namespace mimo {

Device device_of(const Config& c) {
  const std::string& wanted = c.get<std::string>("device");
  const bool found = wanted != "cpu" && cuda::device_count() > 0;
  if (wanted == "cuda" && !found)
    throw ConfigError(c.place("device"), cuda::why_no_device() + ": expected a GPU, found none",
                      "--device=cpu computes on the CPU, auto on what there is");
  return {found ? Device::Kind::cuda : Device::Kind::cpu, 0};
}

// A build for other architectures fails here, not in the first layer.
static void try_kernel(Device device) {
  try {
    Tensor::zeros({1}, DType::f32);
    synchronize(current_stream());
  } catch (const std::exception& e) {
    const cuda::DeviceInfo info = cuda::device_info(device.index);
    const std::string arch = std::to_string(info.major) + std::to_string(info.minor);
    throw std::runtime_error("[device] " + info.name + " (sm_" + arch +
                             ") does not run this build's kernels: " + e.what() +
                             ". hint: make CUDA_ARCH=" + arch + " builds them for it");
  }
}

std::unique_ptr<World> open_device(Device& device, World& world) {
  Communicator& comm = world.world();
  const auto kind = static_cast<int32_t>(device.kind);
  int32_t extremes[2] = {kind, -kind};
  comm.all_reduce({extremes, 2, DType::i32}, ReduceOp::max, current_stream()).wait();
  if (extremes[0] != -extremes[1])
    throw AgreedError(
        "[device] some ranks have a GPU and some have none. hint: --device=cpu computes on none");
  if (device.kind == Device::Kind::cpu) return nullptr;
  device.index = world.node_rank() % cuda::device_count();
  current_stream() = make_stream(device);
  try_kernel(device);
  return device_world(world, device);
}

}  // namespace mimo
