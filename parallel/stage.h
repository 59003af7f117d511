// What the executor runs: a pipeline stage of a module on this rank, and who watches it.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "parallel/batch.h"
#include "parallel/plan.h"
#include "tensor/autograd.h"
#include "tensor/parameter.h"

namespace mimo {

// What a step adds up besides gradients; every rank adds its own share, one world reduction sums them.
struct Statistics {
  double loss_sum = 0;  // over counted tokens, added by one rank only
  Tensor losses;        // f64 [1], undefined where there are none: losses that still lie on the device

  Tensor& on_device();  // losses, made where it is undefined
  void settle();        // moves what lies on the device to loss_sum; waits for it
};

class Stage {
 public:
  virtual ~Stage() = default;
  // The inputs are the in-edges' tensors in the order of Edges (empty ones have 0 rows), leaves of the
  // autograd graph. Returns the output for the out-edges, or the loss sum of shape [1] where the stage has
  // none.
  virtual Tensor forward(std::span<const Tensor> inputs, const PackedBatch& batch,
                         Statistics& statistics) = 0;
  virtual std::vector<Parameter*> parameters() = 0;
};

// Told what the executor does; io implements it for metrics and traces, the watchdog for its messages.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void begin(const Action&) {}
  virtual void end(const Action&) {}
};

}  // namespace mimo
