// The choice that device_world makes, as functions of where the ranks are.
#pragma once
#include "parallel/communicator.h"

namespace mimo {

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
