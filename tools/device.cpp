// Which device a rank computes on.
#include "parallel/agreement.h"
#include "tensor/cuda.h"
#include "tools/job.h"

namespace mimo {

Device device_of(const Config& c) {
  const std::string& wanted = c.get<std::string>("device");
  const bool found = wanted != "cpu" && cuda::device_count() > 0;
  if (wanted == "cuda" && !found)
    throw ConfigError(c.place("device"), cuda::why_no_device() + ": expected a GPU, found none",
                      "--device=cpu computes on the CPU, auto on what there is");
  return {found ? Device::Kind::cuda : Device::Kind::cpu, 0};
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
  return device_world(world, device);
}

}  // namespace mimo
