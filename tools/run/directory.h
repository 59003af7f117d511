// The directory of a run that trains: it becomes this run's alone before the first step.
#pragma once
#include <memory>

#include "io/lock.h"
#include "tools/run/job.h"

namespace mimo {

bool saves_checkpoints(const Job&);

// Makes the run's directory its own, on rank 0: locked, what another run wrote there moved away where this
// one begins anew (`resume` is empty; `say` hears of that), and free of what is in the way of its files.
// Throws ConfigError. `lost`: see DirectoryLock.
std::unique_ptr<DirectoryLock> claim_directory(const Job&, const std::filesystem::path& resume,
                                               const std::function<void(const std::string&)>& say,
                                               std::function<void(const std::string&)> lost);

// Every rank writes its part of a checkpoint: it must see rank 0's directory and be able to write there.
// lock: of rank 0. Collective, see agree().
bool agree_on_directory(Communicator&, const Job&, const DirectoryLock* lock);

}  // namespace mimo
