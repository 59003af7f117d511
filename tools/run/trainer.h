// One run on this rank: the stages it holds, its plan, data and optimizer. Everything collective happens in
// the order of the plan; every decision follows from the step reduction and is the same on every rank.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>

#include "data/loader.h"
#include "io/checkpoint.h"
#include "parallel/execute.h"
#include "parallel/groups.h"
#include "parallel/optimizer.h"
#include "parallel/simulate.h"
#include "parallel/watchdog.h"
#include "tools/run/evaluation.h"
#include "tools/run/measure.h"
#include "tools/run/planned.h"

namespace mimo {

struct StepResult {
  int64_t step = 0;            // steps done, this one included
  std::optional<double> loss;  // mean over counted tokens; none where nothing counts
  double grad_norm = 0, lr = 0;
  int64_t tokens = 0, counted = 0;
  // What was not finite, as in "the loss and 12 elements of gradients": the step was skipped, nothing
  // updated.
  std::string not_finite;
  bool stop = false;  // a signal asked some rank to end the run
};

// Seconds by (module, kind of work) since the last reset; index modules x 2 (forward, backward), then reduce,
// update, waiting. On a GPU: of the stream, not of the host that fills it.
class StepClock : public Observer {
 public:
  explicit StepClock(size_t modules) : seconds_(2 * modules + 3) {}
  void begin(const Action&) override;
  void end(const Action&) override;
  const std::vector<double>& seconds();  // waits for the work that it counts
  void reset();

 private:
  struct Span {
    size_t index;
    Event begin, end;
  };
  std::vector<double> seconds_;
  std::vector<Span> spans_;  // not yet in seconds_
  Event since_;
};

class Trainer {
 public:
  Trainer(const Job&, World& host);
  ~Trainer();

  // The step after the last one done. before_update runs when gradients are reduced, before they are used.
  StepResult step(const std::function<void()>& before_update = nullptr);
  Evaluation evaluate(int64_t first, int64_t end);  // samples [first, end) of the held-out split
  int64_t steps_done() const { return done_; }

  // Collective: failures are those of all ranks, NotFinite among them.
  void save();
  // See non_finite of io/checkpoint.h: of weights and moments. Collective.
  std::string non_finite_state();
  // Throws ConfigError; returns the step that the checkpoint holds.
  int64_t load(const std::filesystem::path& checkpoint);

  // Runs what may wait for other ranks, or combines their values, under the watchdog.
  void watched(const std::string& what, const std::function<void()>&);
  void all_reduce(Buffer, ReduceOp, const std::string& what);

  // Next token after the prompt's last one, for one packed sample, greedy; on one rank.
  int32_t next_token(const Sample& prompt);

  std::vector<Parameter*> parameters() const;
  const Job& job() const { return job_; }
  MachineRates measure_rates();    // of the ranks that run; collective
  const Plan& plan() const;        // of a training step
  std::string device() const;      // where this rank computes and how its messages travel, in words
  const PlanGraph& graph() const;  // of a training step
  StepClock& clock() { return clock_; }
  // Is told of every action of training from now on; it outlives this.
  void observe(Observer& o) { observers_.push_back(&o); }
  static std::atomic<bool> stop_requested;  // on any rank: the step in hand is the last one

 private:
  struct Pass;  // forward-only or training: its plan, executor and order of batches
  struct StepInHand;
  std::unique_ptr<Pass> make_pass(bool forward_only, int waves) const;
  std::vector<int64_t> share(const std::vector<Wave>&, const std::vector<int64_t>& samples, int module,
                             int wave) const;
  void submit(Loader&, const Pass&, const std::vector<Wave>&, const std::vector<int64_t>& samples) const;
  std::vector<ShardedTensor> tensors();  // of parameters and optimizer, where they lie
  void prefetch();

  Job job_;
  std::unique_ptr<World> devices_;  // decorates the world where ranks compute on GPUs
  World& world_;
  int rank_;
  std::unique_ptr<Groups> groups_;
  std::map<std::pair<int, int>, std::unique_ptr<Stage>> stages_;
  PredictingStage* last_ = nullptr;  // the stage that predicts, if held here
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Pass> train_, eval_,
      read_;  // train_: where the job trains; read_: of one sample, when asked for
  std::unique_ptr<Watchdog> watchdog_;
  StepClock clock_;
  std::vector<Observer*> observers_;  // from outside
  SampleOrder order_;
  std::unique_ptr<Loader> loader_;  // as train_
  int64_t done_ = 0, position_ = 0, updates_ = 0, requested_ = 0;
};

}  // namespace mimo
