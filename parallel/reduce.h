// What a step adds up over ranks: gradients over the groups that each parameter names, and one small vector
// over the world from which every rank takes the same decisions.
//
// Gradients are sums; the one division, by the step's counted tokens, comes after. Order: partial sums, data
// parallel sums, step reduction, division, clipping, update.
#pragma once
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/stage.h"
#include "tensor/parameter.h"

namespace mimo {

// The communicators of groups of ranks, created once.
class Groups {
 public:
  // This rank's groups; those of one rank, without this one, or named twice do no harm. Every rank of a group
  // names it.
  Groups(World&, std::vector<Ranks> groups);
  // Of all groups that the gradients of these parameters are summed over.
  Groups(World&, std::span<Parameter* const>);
  Communicator& at(const Ranks&) const;  // throws for a group that was not named

 private:
  std::map<Ranks, std::shared_ptr<Communicator>> made_;
};

constexpr int64_t kBucketBytes = int64_t{1} << 24;

// Sums the gradients of trainable parameters over each of their `partial` groups in turn, in rank order.
// Gradients of the same group travel together, in buckets of up to bucket_bytes. All ranks of a group pass
// the parameters that name it (in any order) and list it in the same place of `partial`.
void reduce_gradients(std::span<Parameter* const>, const Groups&, int64_t bucket_bytes = kBucketBytes);

// Where the buckets end among gradients of these many elements, taken in turn: each holds up to `most`, or
// one gradient that is larger.
std::vector<size_t> bucket_ends(std::span<const int64_t> counts, int64_t most);

// A rank's share of a step, and after reduce_step the whole step's.
struct StepSums {
  Statistics statistics;
  std::vector<double> squared_norm;  // of reduced gradients before the division, by module
  double non_finite = 0;             // elements of gradients that are not finite
  bool stop = false;                 // some rank was asked to end the run
};

// Adds the squared norm and the non-finite elements of this module's gradients: every element of the global
// tensors once, by the first of its copies.
void add_gradients(StepSums&, int module, std::span<Parameter* const>, int world_rank);

void reduce_step(StepSums&, Communicator& world);

}  // namespace mimo
