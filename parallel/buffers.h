// Parts of buffers and copies between them, for the communicators.
#pragma once
#include "parallel/communicator.h"

namespace mimo {

inline bool on_device(const Buffer& b) { return b.device.kind != Device::Kind::cpu; }
inline int64_t bytes(const Buffer& b) { return b.count * size_of(b.dtype); }

Buffer part(const Buffer&, int64_t begin, int64_t count);

// Where each rank's elements begin, and at last where they end; checks that there is a count a rank and that
// the buffer has as many elements.
std::vector<int64_t> begins(std::span<const int64_t> counts, const Buffer&, int ranks);

void* cuda_stream(const Stream&);  // checks that it is one

// In any direction, of as many elements: between buffers of the host at once, else queued.
void copy(const Buffer& from, const Buffer& to, Stream&);

// Collective: the root's text on every rank; every rank's texts, by rank.
std::string broadcast(Communicator&, std::string text, int root);
std::vector<std::string> all_gather(Communicator&, std::string text);

}  // namespace mimo
