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

}  // namespace mimo
