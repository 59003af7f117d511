// One small vector that a step adds up over the world, from which every rank takes the same decisions: what
// the loss is, whether to clip, skip or stop.
#pragma once
#include <span>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/step.h"
#include "tensor/parameter.h"

namespace mimo {

// A rank's share of a step, and after reduce_step the whole step's.
struct StepSums {
  Sums sums;                         // of the stages
  std::vector<double> squared_norm;  // of reduced gradients before the division, by module
  double non_finite = 0;             // elements of gradients that are not finite
  bool stop = false;                 // some rank was asked to end the run
};

// Adds the squared norm and the non-finite elements of this module's gradients: every element of the global
// tensors once, by the first of its copies.
void add_gradients(StepSums&, int module, std::span<Parameter* const>, int world_rank);

void reduce_step(StepSums&, Communicator& world);

}  // namespace mimo
