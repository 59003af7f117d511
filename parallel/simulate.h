// How long a plan takes and what it keeps, by replaying it with the costs of its graph.
#pragma once
#include "parallel/actions.h"

namespace mimo {

struct Timeline {
  struct Span {
    double start = 0, end = 0;
  };
  std::vector<Span> spans;     // [action of plan.order]
  double makespan = 0;         // of the whole step
  std::vector<double> busy;    // [rank], time in forward and backward; the rest of makespan is idle
  double bubbles = 0;          // share of ranks x makespan that is idle
  std::vector<int> in_flight;  // [node], most waves between forward and settlement
  std::vector<double> memory;  // [rank], most that is kept at once, in units of the costs
};

// An action starts when what it waits for is there (StepActions) and its queue is free on all its ranks. The
// plan is taken to be a verified one.
Timeline simulate(const Plan&, const PlanGraph&);
Timeline simulate(const Plan&, const PlanGraph&, const StepActions&);  // of the same graph and waves

}  // namespace mimo
