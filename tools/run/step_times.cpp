#include "tools/run/step_times.h"

#include <algorithm>

namespace mimo {

void StepTimes::add(const std::vector<double>& clock, double seconds) {
  clock_.resize(clock.size());
  for (size_t i = 0; i < clock.size(); ++i) clock_[i] += clock[i];
  seconds_ += seconds, ++steps_;
}

ModuleTimes StepTimes::mean(Trainer& trainer) const {
  ModuleTimes t;
  if (steps_ == 0) return t;  // on every rank
  std::vector<double> most = clock_, busy{0, seconds_};
  for (size_t i = 0; i + 1 < clock_.size(); ++i) busy[0] += clock_[i];  // the last entry is waiting
  combine(trainer, most, ReduceOp::max);
  combine(trainer, busy, ReduceOp::sum);
  const double steps = static_cast<double>(steps_);
  const std::vector<std::string> names = trainer.job().model.names();
  for (size_t m = 0; m < names.size(); ++m) {
    t.rows.emplace_back(names[m] + " forward", 1000 * most[2 * m] / steps);
    t.rows.emplace_back(names[m] + " backward", 1000 * most[2 * m + 1] / steps);
  }
  const size_t rest = 2 * names.size();
  t.rows.emplace_back("reduce", 1000 * most[rest] / steps);
  t.rows.emplace_back("update", 1000 * most[rest + 1] / steps);
  t.rows.emplace_back("waiting", 1000 * most[rest + 2] / steps);
  t.idle = std::max(0.0, 1 - busy[0] / busy[1]);
  t.step = seconds_ / steps;
  return t;
}

}  // namespace mimo
