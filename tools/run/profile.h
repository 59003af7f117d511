// Where the time of training steps goes on every rank: by module and kind of work, and by kernel.
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "parallel/communicator.h"
#include "tensor/profile.h"

namespace mimo {

class StepProfile {
 public:
  // One step's launches, its clock (as StepClock has it) and the time on the wall. The first ten steps are
  // left out: they fill caches.
  void add(const LaunchProfile& launches, const std::vector<double>& clock, double wall, int64_t tokens);

  // Collective: the tables of all ranks, one after the other, on rank 0; elsewhere nothing.
  std::string tables(Communicator& world, const std::vector<std::string>& modules) const;

 private:
  std::string table(int rank, const std::vector<std::string>& modules) const;

  std::map<std::pair<std::string, std::string>, LaunchProfile::Entry> kernels_;  // module, op
  std::vector<double> clock_, walls_;
  int64_t seen_ = 0, tokens_ = 0;
};

}  // namespace mimo
