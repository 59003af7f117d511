// Where memory lies and where work is queued.
#pragma once
#include <memory>
#include <string>
#include <variant>

#include "kernels/kernel.h"

namespace mimo {

struct Device {
  enum class Kind : uint8_t { cpu, cuda } kind = Kind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};
std::string to_string(Device);  // "cpu", "cuda:0"

using Context = std::variant<Cpu, Cuda>;

// A queue of work on a device, which runs in order; on the CPU work is done when it is queued.
struct Stream {
  Device device;
  Context context = Cpu{};
  void* handle() const;  // CUDA's; null on the CPU
};

// The stream that tensors are made on and kernels launched on, by this thread.
Stream& current_stream();

// A new queue; CUDA's live as long as the process. Its device is the thread's from now on.
Stream make_stream(Device);
void synchronize(const Stream&);  // returns when everything queued is done

// A point in a stream, which others wait for. On the CPU it has always passed.
class Event {
 public:
  Event() = default;
  explicit Event(const Stream&, bool timing = false);  // after everything queued so far
  void wait(const Stream&) const;                      // work queued there from now on comes after it
  bool passed() const;
  void synchronize() const;                  // the host waits
  double since(const Event& earlier) const;  // seconds; both with timing

 private:
  std::shared_ptr<void> event_;  // of CUDA, or null
  double at_ = 0;                // of the CPU
};

}  // namespace mimo
