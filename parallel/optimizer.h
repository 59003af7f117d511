// AdamW over the parameters of this rank: fp32 master weights where parameters are bf16, moments, decay rules
// from the parameters' own description. Every rank that holds a copy makes the same update from the same
// reduced gradient.
#pragma once
#include <vector>

#include "tensor/parameter.h"

namespace mimo {

struct AdamOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
};

class Optimizer {
 public:
  Optimizer(const std::vector<Parameter*>& parameters, const AdamOptions&);

  // One update with gradients grad * scale; `t` counts updates from 1. Frozen parameters are left alone.
  void update(double lr, double scale, int64_t t);
  void zero_gradients();

  // The state of one parameter, all in acc_of(dtype) and cut like it. master is the parameter itself where it
  // is fp32.
  struct State {
    Parameter* parameter;
    Tensor master, m, v;
  };
  std::vector<State>& states() { return states_; }

 private:
  AdamOptions options_;
  std::vector<State> states_;
};

struct Schedule {
  enum class Kind { constant, linear, cosine } kind = Kind::cosine;
  double lr = 1e-3, min_lr = 0;
  int64_t warmup = 0, steps = 1;
};
// Learning rate of step `step` (from 0): lr (step + 1) / warmup while step < warmup, then from lr to min_lr
// at the last step.
double learning_rate(const Schedule&, int64_t step);

}  // namespace mimo
