// ./mimo train: the run from start to end. What it tells of itself is the work of those that watch it
// (tools/run/run_observer.h).
#include <fmt/format.h>

#include "io/checkpoint.h"
#include "parallel/agreement.h"
#include "tensor/allocator.h"
#include "tensor/clock.h"
#include "tools/run/directory.h"
#include "tools/run/resume.h"
#include "tools/run/run_observer.h"

namespace mimo {
namespace {

class TrainingRun {
 public:
  TrainingRun(const CommandLine& line, World& world)
      : line_(line),
        world_(world),
        comm_(world.world()),
        progress_(comm_.rank() == 0),
        run_{line_, job_, comm_, progress_} {}

  int operator()() {
    if (!agree(comm_,
               [&] {
                 job_ = make_job(line_.config_file(), line_.overrides, comm_.size());
                 job_.device = device_of(job_.config);
                 if (comm_.rank() == 0) check_unlocked(job_.run_dir);
                 if (const auto found = checkpoint_of(job_.config, job_.run_dir)) {
                   run_.resume = *found;
                   run_.changes = changes_since(run_.resume, job_);
                   refuse(run_.changes, {kDataOrder, kModel}, run_.resume, job_.config);
                 }
               }) ||
        !agree_on_job(comm_, job_, run_.resume))
      return 2;
    Trainer trainer(job_, world_);
    bool ready = true;
    trainer.watched("starting from the run's directory", [&] {
      ready = agree(comm_, [&] {
        if (!run_.resume.empty()) trainer.load(run_.resume);
      });
      run_.first = trainer.steps_done();
      ready = ready && agree(comm_, [&] { open(); });
      ready = ready && agree_on_directory(comm_, job_, lock_.get());
    });
    if (!ready) return 2;
    progress_.say(line_.cores);
    run_.rates = trainer.measure_rates();
    run_.planned.emplace(planned_step(job_, run_.rates.rates, trainer.plan()));
    run_.device = trainer.device();
    count_parameters(trainer);
    tell(&RunObserver::started);
    return loop(trainer);
  }

 private:
  template <class... P, class... A>
  void tell(void (RunObserver::*event)(P...), const A&... arguments) {
    for (const auto& observer : observers_) (observer.get()->*event)(arguments...);
  }

  // The run's directory on rank 0, and on every rank those that watch.
  void open() {
    try {
      if (comm_.rank() == 0) {
        lock_ = claim_directory(
            job_, run_.resume, [this](const std::string& what) { progress_.say(what); },
            [this](const std::string& why) { comm_.abort(why); });
        recall(job_.run_dir / "metrics.jsonl");
      }
      observers_ = make_observers(run_);
      if (comm_.rank() != 0) return;
      std::vector<std::pair<std::string, std::string>> layout;
      for (const auto& [name, grid] : job_.layout.modules) layout.emplace_back(name, to_string(grid));
      job_.config.set_layout(layout);
      write_config(job_.run_dir, job_.config,
                   fmt::format("mimo on {} ranks, layout {}\ncompiled {} with g++ {}", comm_.size(),
                               to_string(job_.layout), __DATE__, __VERSION__));
    } catch (const std::filesystem::filesystem_error& e) {
      throw ConfigError("run.dir", fmt::format("expected a directory that can be written, found {} ({})",
                                               (e.path1().empty() ? job_.run_dir : e.path1()).string(),
                                               e.code().message()));
    }
  }

  // What the run did before this process, so that all that is told of it is of the whole run.
  void recall(const std::filesystem::path& metrics) {
    if (std::filesystem::exists(metrics)) run_.history = read_metrics(metrics);
    std::erase_if(run_.history, [&](const StepMetrics& m) { return m.step > run_.first; });
    for (const StepMetrics& m : run_.history) run_.totals.add(m);
  }

  void count_parameters(Trainer& trainer) {
    run_.parameters.assign(job_.model.modules.size(), 0);
    for (Parameter* p : trainer.parameters())
      if (p->copies.front() == comm_.rank())
        run_.parameters[static_cast<size_t>(job_.layout.index(p->name.substr(0, p->name.find('.'))))] +=
            p->value.numel();
    combine(trainer, run_.parameters, ReduceOp::sum);
  }

  // Why the run cannot go on, in words for people; collective.
  std::string divergence(Trainer& trainer) const {
    const int64_t most = job_.config.get<int64_t>("train.max_skips");
    std::string text = "the run diverged";
    if (skips_.count > 0) text += fmt::format(": {} of step {} were not finite", skips_.what, skips_.first);
    if (skips_.count == most)
      text += fmt::format(", nor were those of any step to {} (train.max_skips: {} in a row)",
                          trainer.steps_done(), most);
    const std::string bad = trainer.non_finite_state();
    text += bad.empty() ? "; weights and moments are finite"
                        : fmt::format("; not finite after step {} are {}", trainer.steps_done(), bad);
    const auto kept = list_checkpoints(run_.checkpoints());
    text += kept.empty() ? "; there is no checkpoint"
                         : fmt::format("; the newest checkpoint is that of step {}, of finite numbers",
                                       kept.rbegin()->first);
    return text + ". hint: a smaller train.lr, a longer train.warmup";
  }

  int loop(Trainer& trainer) {
    const Config& c = job_.config;
    const int64_t steps = c.get<int64_t>("train.steps"), eval_every = c.get<int64_t>("eval.every"),
                  save_every = c.get<int64_t>("checkpoint.every"),
                  times_every = std::max<int64_t>(1, steps / 30);
    int64_t saved = run_.first;
    std::optional<Evaluation> curve;  // of the last step
    bool stopped = false, due = false;
    const auto save = [&] {
      const double since = now();
      try {
        trainer.save();
        saved = trainer.steps_done(), due = false;
      } catch (const NotFinite&) {
        diverged_ = divergence(trainer);
        return;
      }
      tell(&RunObserver::saved, saved, now() - since);
    };
    while (trainer.steps_done() < steps && !stopped && diverged_.empty()) {
      trainer.clock().reset();
      tell(&RunObserver::begin_step);
      const double start = now();
      const StepResult r = trainer.step();
      trainer.watched("the device's work of a step", [&] { trainer.clock().seconds(); });
      const std::vector<double>& clock = trainer.clock().seconds();
      const double seconds = now() - start;
      tell(&RunObserver::end_step, r, seconds, clock);
      stopped = r.stop;

      StepRecord record{r, {}, {}};
      StepMetrics& m = record.metrics;
      m = {r.step, r.loss, r.tokens, r.grad_norm, r.lr, seconds, static_cast<double>(r.tokens) / seconds, {}};
      recent_.add(clock, seconds), all_.add(clock, seconds);
      if (r.step % times_every == 0 || r.step == steps) {
        record.times = recent_.mean(trainer);
        for (const auto& [name, ms] : record.times->rows) m.more.emplace_back("ms " + name, ms);
        m.more.emplace_back(kIdle, *record.times->idle);
        recent_ = {};
      }
      if (r.not_finite.empty()) {
        skips_ = {};
      } else {
        if (skips_.count++ == 0) skips_.first = r.step, skips_.what = r.not_finite;
        m.more.emplace_back(kSkipped, 1);
      }
      curve.reset();
      if (eval_every > 0 && (r.step % eval_every == 0 || r.step == steps) && !stopped) {
        curve = evaluate(trainer);
        m.more.emplace_back(kHeldOutSamples, static_cast<double>(curve->samples()));
        if (const auto loss = curve->loss()) m.more.emplace_back(kHeldOutLoss, *loss);
        if (const auto figure = curve->figure()) m.more.emplace_back(held_out_figure(*job_.task), *figure);
      }
      run_.totals.add(m);
      tell(&RunObserver::recorded, record);
      if (skips_.count == c.get<int64_t>("train.max_skips")) diverged_ = divergence(trainer);
      // Not while steps are skipped: nothing has changed since a checkpoint that this one might displace.
      due = due || (save_every > 0 && r.step % save_every == 0);
      if (due && skips_.count == 0) save();
    }
    if (diverged_.empty() && saved != trainer.steps_done()) {
      if (save_every > 0)
        save();
      else if (!trainer.non_finite_state().empty())
        diverged_ = divergence(trainer);
    }
    if (stopped && diverged_.empty()) {
      tell(&RunObserver::stopped, trainer.steps_done());
      return 0;
    }
    if (!diverged_.empty())
      curve = trainer.evaluate(0, 0);  // nothing
    else if (!curve)
      curve = evaluate(trainer);
    finish(trainer, std::move(*curve));
    if (!diverged_.empty()) throw AgreedError(diverged_);
    return 0;
  }

  // Of the samples of the curve, after a step.
  Evaluation evaluate(Trainer& trainer) {
    const double start = now();
    Evaluation e = trainer.evaluate(0, run_.curve_samples());
    tell(&RunObserver::evaluated, trainer.steps_done(), e, now() - start);
    return e;
  }

  // e: of the samples of the curve, after the last step. A run that has diverged has nothing to evaluate.
  void finish(Trainer& trainer, Evaluation e) {
    RunEnd end;
    end.step = trainer.steps_done(), end.steps_here = end.step - run_.first;
    end.diverged = diverged_;
    if (diverged_.empty()) e.append(trainer.evaluate(e.samples(), job_.data->heldout.samples()));
    end.evaluation = std::move(e);
    end.times = all_.mean(trainer);
    std::vector<std::string> labels = job_.model.names();
    labels.push_back("optimizer");
    std::vector<double> peaks;
    const auto statistics = memory_statistics();
    for (const std::string& label : labels)
      peaks.push_back(statistics.count(label) ? static_cast<double>(statistics.at(label).peak) : 0);
    combine(trainer, peaks, ReduceOp::max);
    for (size_t i = 0; i < labels.size(); ++i) end.peaks.emplace_back(labels[i], peaks[i]);
    end.shown = shown_samples(trainer, end.evaluation);
    trainer.watched("the report of rank 0", [&] {
      tell(&RunObserver::finished, end);
      comm_.barrier();
    });
  }

  CommandLine line_;
  World& world_;
  Communicator& comm_;
  Progress progress_;
  Job job_;
  RunContext run_;
  std::unique_ptr<DirectoryLock> lock_;  // on rank 0
  std::vector<std::unique_ptr<RunObserver>> observers_;
  StepTimes recent_, all_;  // of the steps since times were last gathered; of this process
  // The last steps that were skipped, one after another.
  struct {
    int64_t count = 0, first = 0;
    std::string what;  // was not finite in the first one
  } skips_;
  std::string diverged_;  // why, or empty
};

}  // namespace

int train(const CommandLine& line, World& world) { return TrainingRun(line, world)(); }

}  // namespace mimo
