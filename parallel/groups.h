// All communicators of a run but the world's own, by what they carry and among whom. Equal ones are made
// once, all of them here, in one order: the groups that the modules' stages name, before any stage is built.
//
// A rank does what the plan's total order lists for it, one action after another. Whatever the ranks of a
// group do for one purpose they therefore come to in the same order, of whichever modules, stages and lanes
// it is: colocated modules share a communicator. Of two purposes there is no such order: one may be in flight
// while another begins, and each rank finds out by itself when it is done. So these are apart, though their
// ranks be the same:
//   layers               sums and exchanges inside a forward or backward, recomputed layers' included (tensor
//                        parallelism): on the stream that computes, waited for at once
//   gradients            sums of a stage's gradients, which may still run while other stages' layers talk
//   transfers_forward    outputs from stage to stage: posted when they are there, waited for by who uses them
//   transfers_backward   the same of gradients, in flight together with the outputs of later waves
// The step's sums, checkpoints and agreements use the world's own communicator: there all ranks meet, and
// nothing of them overlaps.
#pragma once
#include <compare>
#include <map>
#include <memory>
#include <vector>

#include "parallel/world.h"

namespace mimo {

enum class Purpose { layers, gradients, transfers_forward, transfers_backward };
const char* name_of(Purpose);

struct Group {
  Purpose purpose = Purpose::layers;
  Ranks ranks;
  auto operator<=>(const Group&) const = default;
};

class Groups {
 public:
  // Those of this rank: groups without it, or named twice, do no harm. Every rank of a group names it. They
  // are created by purpose, then by ranks: one order that all ranks share, so that no two wait for each
  // other.
  Groups(World&, const std::vector<Group>&);
  Communicator& at(Purpose, const Ranks&) const;  // throws for a group that was not named

 private:
  std::map<Group, std::shared_ptr<Communicator>> made_;
};

}  // namespace mimo
