// A stage of layers: what the stages of all kinds share.
#pragma once
#include "nn/module.h"

namespace mimo {

class LayeredStage : public PredictingStage {
 public:
  std::vector<Parameter*> parameters() override { return set_.all(); }
  std::vector<Parameter*> parameters_of(int part) override { return set_.of_part(part); }
  std::pair<int, int> parts() const override {
    return {set_.context().parts.begin, set_.context().parts.end};
  }
  std::vector<Prediction> predictions() const override { return {}; }

 protected:
  explicit LayeredStage(const ModuleContext& context) : set_(context) {}
  bool holds(int part) const { return set_.context().parts.contains(part); }

  // y = f(x), as a part of the stage: recomputed in backward where the run asks for it, and heard of when its
  // gradients are complete.
  template <class F>
  Tensor run_part(int part, const Tensor& x, Step& step, const F& f) const {
    const Tensor in = step.enter(x, part);
    if (!set_.context().recompute) return f(in);
    return recompute([f](const std::vector<Tensor>& inputs) { return f(inputs[0]); }, {in},
                     set_.trainable(part));
  }

  ParameterSet set_;
};

}  // namespace mimo
