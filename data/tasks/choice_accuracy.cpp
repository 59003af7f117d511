// Questions with answers to choose from: the share of questions whose right answer is the likeliest, by the sum of
// -ln p over its labels. A question is a sample of kind 0, with the right answer, and the samples of other kinds
// that follow it, with the wrong ones. A headline should not end inside a question.
#include <algorithm>

#include "data/task.h"

namespace mimo {
namespace {

std::optional<double> figure(std::span<const Judged> samples) {
  int64_t questions = 0, right = 0;
  for (size_t i = 0; i < samples.size();) {
    size_t end = i + 1;
    while (end < samples.size() && samples[end].kind != 0) ++end;
    if (samples[i].kind == 0 && end > i + 1) {  // else its beginning is not here, or there is no choice
      ++questions;
      right += std::all_of(samples.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                           samples.begin() + static_cast<std::ptrdiff_t>(end),
                           [&](const Judged& other) { return samples[i].score < other.score; });
    }
    i = end;
  }
  if (questions == 0) return std::nullopt;
  return static_cast<double>(right) / static_cast<double>(questions);
}

const Registry<EvaluationTask>::Entry entry{{.name = "choice_accuracy",
                                             .title = "choice accuracy",
                                             .help = "share of questions whose right answer is the likeliest",
                                             .score = [](const Reading& r) { return r.loss; },
                                             .figure = figure,
                                             .by_group = false}};

}  // namespace
}  // namespace mimo
