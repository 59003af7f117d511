#include "tensor/device.h"

#include "tensor/clock.h"
#include "tensor/cuda.h"

namespace mimo {

std::string to_string(Device d) {
  return d.kind == Device::Kind::cpu ? "cpu" : "cuda:" + std::to_string(d.index);
}

void* Stream::handle() const {
  const Cuda* cuda = std::get_if<Cuda>(&context);
  return cuda ? cuda->stream : nullptr;
}

Stream& current_stream() {
  thread_local Stream stream;
  return stream;
}

Stream make_stream(Device device) {
  if (device.kind == Device::Kind::cpu) return {};
  cuda::use_device(device.index);
  return {device, Cuda{cuda::create_stream(), device.index, cuda::device_info(device.index).sms, {}}};
}

void synchronize(const Stream& stream) {
  if (stream.device.kind == Device::Kind::cuda) cuda::synchronize(stream.handle());
}

Event::Event(const Stream& stream, bool timing) {
  if (stream.device.kind == Device::Kind::cuda) {
    event_ = {cuda::create_event(timing), cuda::destroy_event};
    cuda::record(event_.get(), stream.handle());
  } else if (timing) {
    at_ = now();
  }
}

void Event::wait(const Stream& stream) const {
  if (event_ && stream.device.kind == Device::Kind::cuda) cuda::wait(stream.handle(), event_.get());
}

bool Event::passed() const { return !event_ || cuda::done(event_.get()); }

void Event::synchronize() const {
  if (event_) cuda::synchronize_event(event_.get());
}

double Event::since(const Event& earlier) const {
  return event_ ? cuda::elapsed(earlier.event_.get(), event_.get()) : at_ - earlier.at_;
}

}  // namespace mimo
