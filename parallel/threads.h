// Ranks share a machine's cores by arithmetic: twice too many threads cost a factor of 50. Call share_cores
// first after MPI_Init, before the first kernel runs.
#pragma once
#include <string>
#include <vector>

namespace mimo {

struct CoreShare {
  std::vector<int> cores;  // where this rank's threads run
  int threads = 1;         // of kernels
  std::string description;
};

// The cores that this process may use: those of its affinity mask, or under a launcher, which leaves masks of
// its own, those of its container (cpuset).
std::vector<int> available_cores();
// How many of them it may keep busy: fewer where the container has a CPU quota.
int usable_cores();

// Rank r of n takes cores [r c / n, (r + 1) c / n) of c, or all where n >= c or not all are usable, and
// max(1, usable / n) threads.
CoreShare core_share(const std::vector<int>& cores, int usable, int node_rank, int node_size);

// Makes this rank's share its affinity and the number of kernels' threads, which MIMO_THREADS overrides, and
// without a launcher OMP_NUM_THREADS.
CoreShare share_cores(int node_rank, int node_size);

}  // namespace mimo
