// A training run as those see it that watch it: its metrics, its words on the terminal, its report. One that
// watches is one file in tools/run/observers/ that registers itself; the run knows none of them.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/metrics.h"
#include "io/registry.h"
#include "tools/run/commands.h"
#include "tools/run/progress.h"
#include "tools/run/shown.h"
#include "tools/run/step_times.h"

namespace mimo {

// Names of StepMetrics::more; "ms MODULE forward" and the like are those of ModuleTimes.
inline constexpr const char *kHeldOutLoss = "held_out_loss", *kHeldOutSamples = "held_out_samples",
                            *kSkipped = "skipped", *kIdle = "idle";
inline std::string held_out_figure(const EvaluationTask& task) { return "held_out_" + task.name; }

// Of the whole run, whatever process did what of it.
struct RunTotals {
  std::optional<double> last_loss;
  double seconds = 0;  // of steps
  int64_t tokens = 0, skipped = 0;

  void add(const StepMetrics&);
  std::optional<double> tokens_per_second() const;
};

// The run that is watched; it stays the same object throughout.
struct RunContext {
  const CommandLine& line;
  const Job& job;
  Communicator& world;
  Progress& progress;                     // what is said on the terminal; of rank 0
  std::filesystem::path resume = {};      // the checkpoint that it goes on from; empty: it begins anew
  std::vector<Difference> changes = {};   // since that
  std::vector<StepMetrics> history = {};  // of the steps up to that, on rank 0
  int64_t first = 0;                      // steps done before this process
  RunTotals totals = {};                  // of history and this process, on rank 0 all of it
  // From started() on:
  std::vector<int64_t> parameters = {};  // by module
  std::string device = {};               // see Trainer::device
  MachineRates rates = {};
  std::optional<PlannedStep> planned = {};

  // Held-out samples of the evaluations before the end: the curve over steps compares the same throughout.
  int64_t curve_samples() const;
  std::filesystem::path checkpoints() const { return job.run_dir / "checkpoints"; }
};

// A step, once all that belongs to it is known.
struct StepRecord {
  const StepResult& result;
  std::optional<ModuleTimes> times;  // mean since the last record that has them; thirty a run have
  StepMetrics metrics;               // all figures by name: of the step, its times, the evaluation after it
};

struct RunEnd {
  int64_t step = 0, steps_here = 0;  // steps done; of those, by this process
  std::string diverged;              // why it could not go on, or empty
  Evaluation evaluation;             // of all held-out samples; of none where the run diverged
  ModuleTimes times;                 // mean over the steps of this process
  std::vector<std::pair<std::string, double>> peaks;  // bytes, by module, of the rank that needs most
  std::vector<ShownSample> shown;                     // held-out samples for people to see
};

// Made when the run's directory is this run's and before it has written there: a constructor opens what is to
// be written, and throws ConfigError where it cannot. Every rank has its observers, told in the same order,
// so what is collective may be done; most do their work on rank 0 alone. What they throw ends the run.
class RunObserver {
 public:
  virtual ~RunObserver() = default;
  virtual void started() {}  // before the first step
  virtual void begin_step() {}
  // The seconds it took, and those of its parts (see StepClock).
  virtual void end_step(const StepResult&, double /*seconds*/, const std::vector<double>& /*clock*/) {}
  // On the samples of the curve.
  virtual void evaluated(int64_t /*step*/, const Evaluation&, double /*seconds*/) {}
  virtual void recorded(const StepRecord&) {}  // after the step's evaluation, before its checkpoint
  virtual void saved(int64_t /*step*/, double /*seconds*/) {}
  virtual void stopped(int64_t /*step*/) {}  // by a signal: the last it hears
  virtual void finished(const RunEnd&) {}    // also of a run that diverged
};

struct RunObserverKind {
  std::string name;
  int order = 0;                            // told in rising order; of equal order, by name
  std::string file = {};                    // in the run's directory, of those that write one
  std::function<void(Keys&)> declare = {};  // its keys of the configuration, where it has some
  // The run outlives it. Null: nothing to watch, here or as the run is configured.
  std::function<std::unique_ptr<RunObserver>(const RunContext&)> make;
};

// On rank 0 alone.
template <class T>
std::unique_ptr<RunObserver> on_rank_0(const RunContext& run) {
  return run.world.rank() == 0 ? std::make_unique<T>(run) : nullptr;
}

std::vector<std::unique_ptr<RunObserver>> make_observers(const RunContext&);

}  // namespace mimo
