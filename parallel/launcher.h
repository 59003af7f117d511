// What the environment says of the launcher that started this process: mpirun, srun and their like.
#pragma once
#include <optional>
#include <string>

namespace mimo {

struct Launcher {
  std::string variable;  // that says how many processes it started
  int size = 0, rank = 0;
};

// The innermost launcher that says its size; none where this process was started alone. Of SLURM only what a
// step sets counts: SLURM_NTASKS is there in an allocation's shell too.
std::optional<Launcher> launcher();

// Throws ConfigError where MPI connects another number of processes than the launcher started: each would
// believe to be alone, and all would do the same work in the same place.
void check_launcher(int world_size);

// Of an Open MPI job that waits in MPI_Init: which of this machine's ranks do not run this program, in words;
// "" where all do.
std::string missing_ranks();
// This rank's place among those of its machine, 0 where the launcher does not say.
int local_rank();

}  // namespace mimo
