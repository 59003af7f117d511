// What the executor runs: a pipeline stage of a module on this rank, and who watches it.
#pragma once
#include <span>
#include <utility>
#include <vector>

#include "parallel/batch.h"
#include "parallel/plan.h"
#include "parallel/step.h"
#include "tensor/parameter.h"

namespace mimo {

class Stage {
 public:
  virtual ~Stage() = default;
  // The inputs, one for each input port that an edge leads to, in the order of the ports (see StageEdge;
  // empty ones have 0 rows), are leaves of the autograd graph. Returns one tensor for each output port that
  // an edge leaves. Losses go to the step.
  virtual std::vector<Tensor> forward(std::span<const Tensor> inputs, const PackedBatch& batch,
                                      Step& step) = 0;
  virtual std::vector<Parameter*> parameters() = 0;
  // The stage's parts [first, second), from input to output, and the parameters of one of them: all together
  // they are parameters(). Backward completes their gradients from the last part to the first.
  virtual std::pair<int, int> parts() const { return {0, 1}; }
  virtual std::vector<Parameter*> parameters_of(int part) {
    return part == parts().first ? parameters() : std::vector<Parameter*>();
  }
};

// Told what the executor does; io implements it for metrics and traces, the watchdog for its messages.
class Observer {
 public:
  virtual ~Observer() = default;
  // What the rank is busy with, one action at a time: again of a transfer or a reduction that it waits for.
  virtual void begin(const Action&) {}
  virtual void end(const Action&) {}
  // Transfers and reductions go on by themselves, whatever the rank does meanwhile: from when they are
  // started until they are found to be complete.
  virtual void started(const Action&) {}
  virtual void completed(const Action&) {}
};

}  // namespace mimo
