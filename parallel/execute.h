// Runs one rank's part of a plan: stages, transfers, and the hooks that reduce gradients and update weights.
// It follows the list and decides nothing.
//
// A reduction is started as soon as the last backward has come to its bucket, in the order of the plan, and
// waited for before the step reduction. A transfer posts its messages and returns; whoever uses what it
// brings waits for it. Which rank gives which rows to which is said by spread.h: a receiver that has them
// itself (colocated modules) takes what lies there, the very tensor where it is all of the input, else a
// copy. The same holds backwards: the gradient of an input or output lies as it does.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/plan.h"
#include "parallel/spread.h"
#include "parallel/stage.h"

namespace mimo {

// What crosses a stage edge: tensors [rows, width], samples laid end to end.
struct EdgeSpec {
  StageEdge edge;
  int64_t width = 0;
  DType dtype = DType::f32;
  std::function<int64_t(const SampleSizes&)> rows;  // of one sample
  // How the rows of a lane's samples lie over its block where they leave and where they enter; null: on one
  // part, so that all ranks of the block have the same.
  using SpreadOf = std::function<Spread(const std::vector<SampleSizes>&)>;
  SpreadOf src_spread = nullptr, dst_spread = nullptr;
};

// What the executor calls where the plan says so.
class StepHooks {
 public:
  virtual ~StepHooks() = default;
  // The samples of a wave that this rank's lane of a module owns; valid until the stage's forward returns.
  virtual const PackedBatch& batch(int module, int wave) = 0;
  // Starts the sum of this rank's gradients in a bucket of a stage, over its lanes.
  virtual Work reduce(int /*module*/, int /*stage*/, int /*bucket*/) { return {}; }
  virtual void step_reduce(Sums&) {}  // sums them (and norms) over the world, when all gradients are sums
  virtual void update() {}
};

class Executor {
 public:
  // `plan` is the whole plan, verified; `edges` are in the order of stage_edges; `stages` holds one for every
  // (module, stage) that this rank has a node of. The two communicators span the world and carry nothing
  // else: messages of a pair of ranks match in the order of the plan. All references must outlive the
  // executor.
  Executor(const PlanGraph& graph, const Plan& plan, std::vector<EdgeSpec> edges, int rank,
           const std::map<std::pair<int, int>, Stage*>& stages, Communicator& transfers_forward,
           Communicator& transfers_backward);

  // One step. `waves` (as many as the plan has) say which lane owns which sample, `sizes` how large the
  // step's samples are; with a forward-only plan nothing is recorded. `sums`: what the stages add to, and the
  // hook sums over ranks. scale: the gradient of every loss. The observer is told of every action when it
  // begins and ends, and again of a transfer while the rank waits for it.
  void step(std::span<const Wave> waves, std::span<const SampleSizes> sizes, Sums& sums, StepHooks& hooks,
            Observer& observer, double scale = 1);

 private:
  // A node this rank takes part in.
  struct Local {
    Stage* stage = nullptr;
    std::vector<int> in, out;                 // stage edges
    std::vector<int> inputs, outputs;         // ports
    int transfers_in = 0, transfers_out = 0;  // of a wave: gradients sent to sources, outputs to destinations
  };
  // What a node keeps of a wave.
  struct Held {
    std::vector<Tensor> arrived;          // [in], until forward
    std::vector<NodePtr> leaves;          // [input], from forward to backward; null: no gradient is wanted
    std::unique_ptr<Step> step;           // from forward to backward
    std::vector<NodePtr> nodes;           // [output], likewise
    std::vector<Tensor> outputs;          // [output], until the last of their transfers is posted
    std::vector<Tensor> returned;         // [out], gradients, until backward
    std::vector<Tensor> input_gradients;  // [input], until the last of their transfers is posted
    int transfers_left = 0;
  };
  struct Pending {
    Work work;
    Action action;
    int from = -1, to = -1;  // nodes of a transfer
  };

  void forward(const Action&);
  void backward(const Action&);
  std::vector<Tensor> inputs(const Local&, Held&, const Action&) const;
  void transfer(const Action&);
  void reduce_ready();
  void bind_crossings();
  std::vector<Spread> lay(const EdgeSpec&, bool source, int wave) const;
  void progress();
  void wait_for(std::vector<Pending>&, const std::function<bool(const Pending&)>& wanted);
  int64_t rows(int stage_edge, int wave, bool source, int node) const;
  bool mine(int node) const { return local_.count(node) != 0; }

  const PlanGraph& graph_;
  Plan plan_;  // of this rank
  std::vector<EdgeSpec> edges_;
  int rank_;
  Communicator &transfers_forward_, &transfers_backward_;
  std::map<int, Local> local_;          // by node
  std::vector<bool> carries_gradient_;  // [stage edge]
  std::vector<Action> reductions_;      // of this rank, in the order of the plan

  // Of the step in hand.
  std::span<const Wave> waves_;
  std::span<const SampleSizes> sizes_;
  StepHooks* hooks_ = nullptr;
  Observer* observer_ = nullptr;
  Sums* sums_ = nullptr;
  double scale_ = 1;
  // What crosses a stage edge in a wave, and how it lies at both ends, by lane.
  struct Crossing {
    std::vector<Route> routes;
    std::vector<Spread> src, dst;
  };
  std::map<std::pair<int, int>, Crossing> crossings_;  // (stage edge, wave)
  std::map<std::pair<int, int>, Held> held_;           // (node, wave)
  std::vector<Pending> pending_;
  std::map<std::pair<int, int>, int>
      come_to_;         // (module, stage): the part that its last backward has come to
  size_t reduced_ = 0;  // of reductions_: those that are started
  std::vector<Pending> reducing_;
};

}  // namespace mimo
