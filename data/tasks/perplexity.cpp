// exp of the mean loss of a label: from how many equally likely tokens the model seems to choose.
#include <cmath>

#include "data/task.h"

namespace mimo {
namespace {

std::optional<double> figure(std::span<const Judged> samples) {
  double loss = 0;
  int64_t counted = 0;
  for (const Judged& s : samples) loss += s.score, counted += s.counted;
  if (counted == 0) return std::nullopt;
  return std::exp(loss / static_cast<double>(counted));
}

const Registry<EvaluationTask>::Entry entry{{.name = "perplexity",
                                             .title = "perplexity",
                                             .help = "exp of the mean loss of a label",
                                             .score = [](const Reading& r) { return r.loss; },
                                             .figure = figure}};

}  // namespace
}  // namespace mimo
