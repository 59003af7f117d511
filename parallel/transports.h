// The communicators that there are, by how their messages travel. (Over MPI: see World::create.)
#pragma once
#include "parallel/communicator.h"

namespace mimo {

// Where a communicator changes its ways; tests make them tiny. The last two are MPI's.
struct Limits {
  int64_t message = (int64_t{1} << 30) - 1;  // elements of one message
  int64_t scratch = int64_t{1} << 24;        // bytes of received data that await their sum
  int64_t direct = int64_t{1} << 16;         // extra bytes a rank may receive to save a round of messages
};

// Whether MPI's all_reduce of so many bytes lets every rank sum all buffers itself, which takes one round of
// messages, instead of a part each, which takes two and fewer bytes.
inline bool reduces_directly(int64_t bytes, int64_t ranks, const Limits& limits) {
  return (ranks - 1) * (ranks - 2) * bytes <= ranks * limits.direct;
}

// The communicator of a single rank: every operation is a copy or nothing.
std::shared_ptr<Communicator> self_communicator(int world_rank = 0);

// Those that follow carry memory of a device too. Host memory goes to `host`, of the same ranks, which also
// bootstraps and ends the job.

// Through pinned host memory.
std::shared_ptr<Communicator> staged_communicator(std::shared_ptr<Communicator> host);

// Over NCCL, on a stream of its own; collective. Throws where there is no NCCL.
std::shared_ptr<Communicator> nccl_communicator(std::shared_ptr<Communicator> host, Device,
                                                const Limits& = {});
std::string why_no_nccl();  // "" where it can be used

}  // namespace mimo
