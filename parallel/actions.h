// Every action of a step, numbered, and what each waits for: said once, for the planner that makes an order
// and the simulator that replays one. (The verifier says it again, in its own way, to check both.)
#pragma once
#include <vector>

#include "parallel/plan.h"

namespace mimo {

// The queues of a rank: what is in one of them runs in order.
enum class Queue { compute, transfers_forward, transfers_backward, reductions };
constexpr int kQueues = 4;
Queue queue_of(Action::Kind);

class StepActions {
 public:
  // It can start when this share of another has passed.
  struct Wait {
    int on;
    double share = 1;
  };

  StepActions(const PlanGraph&, int waves);

  int size() const { return static_cast<int>(all_.size()); }
  const Action& operator[](int id) const { return all_[static_cast<size_t>(id)]; }
  const std::vector<Wait>& waits(int id) const { return waits_[static_cast<size_t>(id)]; }
  int id(const Action&) const;  // throws for one that is none of the step's

 private:
  int add(const Action&);
  int add_waves(Action);
  void wait(int id, int on, double share = 1) { waits_[static_cast<size_t>(id)].push_back({on, share}); }

  const PlanGraph& graph_;
  int waves_;
  std::vector<Action> all_;
  std::vector<std::vector<Wait>> waits_;
  // The first of each block: [node] and [edge], -1: there is none; of buckets by (module, stage).
  std::vector<int> forward_, backward_, sent_, returned_;
  std::map<std::pair<int, int>, int> reduced_;
  int step_reduce_ = -1, update_ = -1;
};

}  // namespace mimo
