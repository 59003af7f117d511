// The error rate of a transcript: edits that make what is read of what is there, a token of the latter; the mean
// over samples.
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
