// Proof, once at start, that a plan can be executed.
#pragma once
#include "parallel/plan.h"

namespace mimo {

// Throws std::logic_error naming the action, its place and what is wrong, unless
// - every action of the step is there exactly once, waves in order, and none beside them;
// - every action comes after those whose results it uses;
// - no node has more waves in flight than plan.in_flight says;
// - the ranks' lists run to the end without any buffering (see run_unbuffered).
void verify(const Plan&, const PlanGraph&);

// Every rank's list: the order restricted to it.
std::vector<std::vector<Action>> rank_lists(const Plan&, const PlanGraph&);

// Runs the ranks' lists where an action happens only when all its ranks have come to it, and each rank does
// one thing at a time. Throws std::logic_error with who waits for whom if that blocks.
void run_unbuffered(const std::vector<std::vector<Action>>& lists, const PlanGraph&);

}  // namespace mimo
