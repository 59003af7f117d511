// Edits from the tokens predicted, each from the true text before it, to those that are there, a token of these;
// the mean over samples. Not the error rate of a free transcript: one token is predicted for each label.
#include "tensor/edit_distance.h"
#include "data/task.h"

namespace mimo {
namespace {

double score(const Reading& r) {
  if (r.labels.empty()) return 0;
  return static_cast<double>(edit_distance(r.predicted, r.labels)) / static_cast<double>(r.labels.size());
}

const Registry<EvaluationTask>::Entry entry{{.name = "edit_distance",
                                             .title = "edits a token",
                                             .help = "edits from what is read to what is there, a token",
                                             .score = score,
                                             .figure = mean_score}};

}  // namespace
}  // namespace mimo
