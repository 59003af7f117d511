// AdamW over the parameters of this rank: fp32 master weights where parameters are bf16, moments, decay rules
// from the parameters' own description. Every rank that holds a copy makes the same update from the same
// reduced gradient.
#pragma once
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "tensor/parameter.h"

namespace mimo {

struct AdamOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
};

class Optimizer {
 public:
  // The elements [begin, end) of a parameter's local storage, and the world ranks that keep the same state.
  struct Portion {
    int64_t begin = 0, end = 0;
    std::vector<int> copies;
  };
  using PortionOf = std::function<Portion(const Parameter&)>;
  static Portion all_of(const Parameter& p) { return {0, p.value.numel(), p.copies}; }

  // Keeps and updates a portion of every parameter that is trained.
  Optimizer(const std::vector<Parameter*>& parameters, const AdamOptions&, const PortionOf& = all_of);

  // One update with gradients grad * scale; `t` counts updates from 1. Frozen parameters are left alone.
  void update(double lr, double scale, int64_t t);
  void zero_gradients();

  // The state of a portion, all in acc_of(dtype), which lies where the parameter's elements lie. master is
  // those elements themselves where the parameter is fp32.
  struct State {
    Parameter* parameter;
    Portion portion;
    Shard shard;  // of the global tensor
    Tensor master, m, v;
  };
  std::vector<State>& states() { return states_; }

  // The states as a checkpoint keeps them: NAME/master (where it is not the parameter), /exp_avg,
  // /exp_avg_sq.
  std::vector<ShardedTensor> tensors(int rank) const;
  // Master copies that are named begin again at their parameters.
  void restart(const std::set<std::string>& masters);

 private:
  AdamOptions options_;
  std::vector<State> states_;
};

}  // namespace mimo
