// Where memory lies and where work is queued.
#pragma once
#include <memory>
#include <variant>

#include "kernels/kernel.h"

namespace mimo {

struct Device {
  enum class Kind : uint8_t { cpu, cuda } kind = Kind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

using Context = std::variant<Cpu, Cuda>;

// A queue of work on a device; on the CPU work is done when it is queued.
struct Stream {
  Device device;
  Context context = Cpu{};
};

// The stream that tensors are made on and kernels launched on, by this thread.
Stream& current_stream();

}  // namespace mimo
