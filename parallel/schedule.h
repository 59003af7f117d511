// The learning rate over the steps of a run.
#pragma once
#include <cstdint>

namespace mimo {

struct Schedule {
  enum class Kind { constant, linear, cosine } kind = Kind::cosine;
  double lr = 1e-3, min_lr = 0;
  int64_t warmup = 0, steps = 1;
};
// Learning rate of step `step` (from 0): lr (step + 1) / warmup while step < warmup, then from lr to min_lr
// at the last step.
double learning_rate(const Schedule&, int64_t step);

}  // namespace mimo
