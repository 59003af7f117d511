// Where the time of steps goes, all ranks together.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/run/trainer.h"

namespace mimo {

// Mean milliseconds a step of the busiest rank, by module and kind of work.
struct ModuleTimes {
  std::vector<std::pair<std::string, double>> rows;  // "vision forward"
  std::optional<double> idle;                        // share of time that ranks wait for others
  std::optional<double> step;                        // seconds of a whole step
};

// Of the steps added; none have no times.
class StepTimes {
 public:
  // The seconds of a step on this rank: of its parts (see StepClock) and in all.
  void add(const std::vector<double>& clock, double seconds);
  // Gathers the clocks of all ranks: for every module the busiest rank's, and the share of time ranks wait.
  // Collective.
  ModuleTimes mean(Trainer&) const;

 private:
  std::vector<double> clock_;
  double seconds_ = 0;
  int64_t steps_ = 0;
};

// Values of all ranks combined, on all of them. Collective.
template <class T>
void combine(Trainer& trainer, std::vector<T>& values, ReduceOp op) {
  trainer.all_reduce(Buffer(values.data(), static_cast<int64_t>(values.size()), dtype_of<T>()), op,
                     "figures of all ranks");
}

}  // namespace mimo
