// The share of samples whose every label is the likeliest token. As each is predicted from the true text before it,
// this is the share that greedy reading gets right.
#include "data/task.h"

namespace mimo {
namespace {

const Registry<EvaluationTask>::Entry entry{{.name = "exact_match",
                                             .title = "exact match",
                                             .help = "share of samples that are read without a fault",
                                             .score = [](const Reading& r) { return r.right() ? 1.0 : 0.0; },
                                             .figure = mean_score}};

}  // namespace
}  // namespace mimo
