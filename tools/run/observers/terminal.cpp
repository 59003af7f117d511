// What people read of a run while it goes on, and of its end.
#include <fmt/format.h>

#include "data/image.h"
#include "io/checkpoint.h"
#include "tools/run/run_observer.h"

namespace mimo {
namespace {

class Terminal : public RunObserver {
 public:
  explicit Terminal(const RunContext& run)
      : run_(run),
        out_(run.progress),
        steps_(run.job.config.get<int64_t>("train.steps")),
        save_every_(run.job.config.get<int64_t>("checkpoint.every")),
        left_({steps_, run.job.global_batch(), run.job.config.get<int64_t>("eval.every"), run.curve_samples(),
               run.job.data->heldout.samples(), save_every_}) {}

  void started() override {
    const Job& job = run_.job;
    for (size_t m = 0; m < run_.parameters.size(); ++m)
      out_.say(fmt::format("{:10} {:>10} parameters on {}", job.model.modules[m]->name, run_.parameters[m],
                           to_string(job.layout.modules[m].second)));
    out_.say("device: " + run_.device);
    out_.say(fmt::format("step: {} samples in {} waves; {} training and {} held-out samples; run in {}",
                         job.global_batch(), job.waves, job.data->train.samples(),
                         job.data->heldout.samples(), job.run_dir.string()));
    out_.say("planned step: " + run_.planned->text());
    out_.say("rates of a rank: " + run_.rates.text());
    if (run_.resume.empty()) return;
    out_.say(fmt::format("resuming after step {} from {}", run_.first, run_.resume.string()));
    for (const Difference& d : run_.changes)
      out_.say(fmt::format("  changed: {} was {}, is {}", d.key, d.before, d.now));
    const auto all = list_checkpoints(run_.checkpoints());
    if (!all.empty() && all.rbegin()->first > run_.first)
      out_.say(fmt::format("the next checkpoint replaces those of steps {} to {}",
                           all.upper_bound(run_.first)->first, all.rbegin()->first));
    if (run_.first >= steps_) out_.say("nothing left to train; --resume=never begins anew");
  }

  void evaluated(int64_t step, const Evaluation& e, double seconds) override {
    left_.evaluated(seconds, e.samples());
    out_.say(fmt::format("held out after step {}: {}", step, e.text()));
  }

  void recorded(const StepRecord& record) override {
    const StepResult& r = record.result;
    left_.stepped(record.metrics.step_seconds);
    seconds_ += record.metrics.step_seconds, tokens_ += r.tokens;
    const double speed = static_cast<double>(tokens_) / seconds_;
    if (record.times) {
      times_ = columns_of(*record.times);
      seconds_ = 0, tokens_ = 0;
    }
    std::vector<Column> columns = {
        {0, fmt::format("step {}/{}", r.step, steps_), fmt::format("{}/{}", r.step, steps_)},
        {1, "loss " + figure_text(r.loss)},
        {3, fmt::format("{:.0f} tokens/s", speed), fmt::format("{:.0f}/s", speed)},
        {2, time_text(left_.after(r.step)) + " left"}};
    columns.insert(columns.end(), times_.begin(), times_.end());
    if (!r.not_finite.empty())
      columns.push_back({1, "(skipped: " + r.not_finite + " not finite)", "(skipped)"});
    out_.update(columns, record.times.has_value());
  }

  void saved(int64_t, double seconds) override { left_.saved(seconds); }

  void stopped(int64_t step) override {
    out_.say(fmt::format(
        "stopped by a signal after step {}; {}", step,
        save_every_ > 0 ? "the same command resumes" : "no checkpoint, as checkpoint.every is 0"));
  }

  void finished(const RunEnd& end) override {
    show(end.shown);
    const Evaluation& e = end.evaluation;
    if (end.times.idle)
      out_.say(fmt::format("trained {} steps in {}, {} tokens/s, ranks idle {:.0f} % of the time", end.step,
                           time_text(run_.totals.seconds), figure_text(run_.totals.tokens_per_second(), 0),
                           100 * *end.times.idle));
    std::string lengths;
    for (const auto& g : e.by_length()) lengths += fmt::format("  {}: {:.3f}", g.name, g.figure);
    if (!lengths.empty()) out_.say(e.task->title + " by length" + lengths);
    if (end.diverged.empty()) out_.say(fmt::format("held out, all {} samples: {}", e.samples(), e.text()));
  }

 private:
  // "vision 1.2 + 2.3 language 3.4 + 5.6 ms" (forward + backward), "idle 12 %".
  static std::vector<Column> columns_of(const ModuleTimes& times) {
    std::string modules;
    for (const auto& [name, ms] : times.rows) {
      if (name.ends_with("forward")) modules += fmt::format("{} {:.1f}", name.substr(0, name.find(' ')), ms);
      if (name.ends_with("backward")) modules += fmt::format(" + {:.1f} ", ms);
    }
    return {{5, modules + "ms", ""}, {4, fmt::format("idle {:.0f} %", 100 * *times.idle), ""}};
  }

  // The first four that have images.
  void show(const std::vector<ShownSample>& samples) {
    int drawn = 0;
    for (const ShownSample& shown : samples) {
      if (drawn == 4) break;
      const Sample s = run_.job.data->heldout.read(shown.id);
      if (s.items.empty()) continue;
      const ReadImage r = read_image(*run_.job.data, shown);
      out_.say("");
      for (const Sample::Item& item : s.items)
        if (item.drawable()) out_.say(draw(item.image()));
      out_.say(fmt::format("  reads \"{}\"{}", r.reading, r.right() ? "" : ", is \"" + r.expected + "\""));
      ++drawn;
    }
    out_.say("");
  }

  const RunContext& run_;
  Progress& out_;
  int64_t steps_, save_every_;
  TimeLeft left_;
  double seconds_ = 0;  // since the last times
  int64_t tokens_ = 0;
  std::vector<Column> times_;  // the last ones
};

const Registry<RunObserverKind>::Entry entry{{.name = "terminal", .order = 20, .make = on_rank_0<Terminal>}};

}  // namespace
}  // namespace mimo
