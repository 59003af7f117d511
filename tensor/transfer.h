// Bytes between the host and the current stream's device, through pinned host memory, so that the host waits
// for nothing but what it reads.
#pragma once
#include <cstdint>

#include "tensor/device.h"

namespace mimo {

// Queued on the stream; `host` may be reused at once.
void upload(void* device, const void* host, int64_t bytes, const Stream&);
// Waits for the stream's work so far.
void download(void* host, const void* device, int64_t bytes, const Stream&);

}  // namespace mimo
