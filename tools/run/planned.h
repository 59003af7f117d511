// The planned time of a step: one function that ./mimo plan, the start of a run and its report all ask.
#pragma once
#include "parallel/rates.h"
#include "parallel/simulate.h"
#include "tools/run/job.h"

namespace mimo {

// All messages of a step, those of every rank added up.
struct StepTraffic {
  Traffic tensor;     // all_reduces of tensor parallelism
  Traffic gradients;  // all_reduces over lanes
  Traffic transfers;  // messages between stages, to and fro
  bool operator==(const StepTraffic&) const = default;
};

// The plan's graph with the seconds that the given samples (one step's) take at these rates.
PlanGraph job_graph(const Job&, const std::vector<SampleSizes>& step, bool forward_only, const Rates&);

struct PlannedStep {
  PlanGraph graph;
  Plan plan;          // at the rates of the configuration
  Timeline timeline;  // of the plan, in seconds at the rates
  StepTraffic traffic;
  std::string text() const;  // "8.41 ms, bubbles 33 %"
};
// Of the first step of training, in the order of job_plan.
PlannedStep planned_step(const Job&, const Rates&, Plan);

// The sizes of the first step's samples.
std::vector<SampleSizes> typical_sizes(const Job&);
// The order of a training step, planned at the rates that the configuration gives (machine.*), never at
// measured ones: every run of a job has the same schedule.
Plan job_plan(const Job&);

}  // namespace mimo
