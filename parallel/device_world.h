// The world of ranks that compute on GPUs, and the choice that it makes for each group, as functions of where
// the ranks are.
#pragma once
#include <span>
#include <string>

#include "parallel/world.h"

namespace mimo {

// A world for ranks whose memory is on `device`, a GPU; `host` outlives it. Groups in which every rank
// has a GPU of its own use NCCL, the others are staged: collective, and the same on all ranks.
//
// MIMO_NCCL_SHARE_GPU=1 in the environment uses NCCL between ranks that share a GPU too, for tests on a
// machine with a single one: NCCL refuses that, so each rank says that it is a machine of its own and
// messages travel over loopback sockets.
std::unique_ptr<World> device_world(World& host, Device device);

struct RankPlace {
  std::string machine, host;  // unique; for the user
  std::string pci;            // the GPU on its machine
  int device = 0;
  std::string why_no_nccl;
};

// Whether a group of such ranks does. `share`: even where some have the same GPU.
bool uses_nccl(std::span<const RankPlace>, bool share);
// What a world of such ranks does, in words.
std::string describe_transport(std::span<const RankPlace>, bool share);

}  // namespace mimo
