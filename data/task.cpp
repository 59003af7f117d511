#include "data/task.h"

#include "data/tokenizer.h"
#include "tensor/error.h"

namespace mimo {

std::optional<double> mean_score(std::span<const Judged> samples) {
  if (samples.empty()) return std::nullopt;
  double sum = 0;
  for (const Judged& s : samples) sum += s.score;
  return sum / static_cast<double>(samples.size());
}

const EvaluationTask& task_named(const std::string& name, const std::string& place) {
  const EvaluationTask* found = Registry<EvaluationTask>::find(name);
  if (!found)
    throw ConfigError(place, "no such evaluation task: expected one of " + Registry<EvaluationTask>::names() +
                                 ", found " + printable(name.substr(0, 40)));
  return *found;
}

}  // namespace mimo
