#include "tools/run/run_observer.h"

#include <algorithm>

namespace mimo {

void RunTotals::add(const StepMetrics& m) {
  last_loss = m.loss, seconds += m.step_seconds, tokens += m.tokens;
  if (m.value(kSkipped)) ++skipped;
}

std::optional<double> RunTotals::tokens_per_second() const {
  if (seconds == 0) return std::nullopt;
  return static_cast<double>(tokens) / seconds;
}

int64_t RunContext::curve_samples() const {
  const int64_t all = job.data->heldout.samples();
  return job.config.get<int64_t>("eval.every") > 0 ? std::min(job.config.get<int64_t>("eval.samples"), all)
                                                   : all;
}

std::vector<std::unique_ptr<RunObserver>> make_observers(const RunContext& run) {
  std::vector<const RunObserverKind*> kinds;
  for (const auto& [name, kind] : Registry<RunObserverKind>::all()) kinds.push_back(&kind);
  std::stable_sort(kinds.begin(), kinds.end(), [](auto* a, auto* b) { return a->order < b->order; });
  std::vector<std::unique_ptr<RunObserver>> all;
  for (const RunObserverKind* kind : kinds)
    if (auto observer = kind->make(run)) all.push_back(std::move(observer));
  return all;
}

}  // namespace mimo
