// ./mimo train: the run from start to report.
#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>

#include "data/image.h"
#include "data/tokenizer.h"
#include "io/lock.h"
#include "io/metrics.h"
#include "parallel/agreement.h"
#include "parallel/buffers.h"
#include "parallel/draw.h"
#include "tensor/clock.h"
#include "tools/run/commands.h"
#include "tools/run/planned.h"
#include "tools/run/profile.h"
#include "tools/run/progress.h"
#include "tools/run/report.h"
#include "tools/run/resume.h"
#include "tools/run/trainer.h"

namespace mimo {
namespace {

constexpr const char *kHeldOutLoss = "held_out_loss", *kExactMatch = "held_out_exact_match",
                     *kHeldOutSamples = "held_out_samples", *kSkipped = "skipped";

// Mean milliseconds a step of the busiest rank, by module and kind of work.
struct ModuleTimes {
  std::vector<std::pair<std::string, double>> rows;
  std::optional<double> idle;  // share of time that ranks wait for others
  std::optional<double> step;  // seconds of a whole step
};

class TrainingRun {
 public:
  TrainingRun(const CommandLine& line, World& world)
      : line_(line), world_(world), comm_(world.world()), progress_(comm_.rank() == 0) {}

  int operator()() {
    if (!agree(comm_,
               [&] {
                 job_ = make_job(line_.config_file(), line_.overrides, comm_.size());
                 job_.device = device_of(job_.config);
                 if (comm_.rank() == 0) check_unlocked(job_.run_dir);
                 if (const auto found = checkpoint_of(job_.config, job_.run_dir)) {
                   resume_ = *found;
                   changes_ = changes_since(resume_, job_);
                   refuse(changes_, {kDataOrder, kModel}, resume_, job_.config);
                 }
               }) ||
        !agree_on_job(comm_, job_, resume_))
      return 2;
    Trainer trainer(job_, world_);
    bool ready = true;
    trainer.watched("starting from the run's directory", [&] {
      ready = agree(comm_, [&] {
        if (!resume_.empty()) trainer.load(resume_);
      });
      ready = ready && agree(comm_, [&] {
                if (comm_.rank() == 0) open_directory(trainer.steps_done());
              });
      ready = ready && agree_on_directory();
    });
    if (!ready) return 2;
    progress_.say(line_.cores);
    rates_ = trainer.measure_rates();
    planned_.emplace(planned_step(job_, rates_.rates, trainer.plan()));
    header(trainer, trainer.steps_done());
    return loop(trainer, trainer.steps_done());
  }

 private:
  void open_directory(int64_t first) {
    try {
      namespace fs = std::filesystem;
      const fs::path metrics = job_.run_dir / "metrics.jsonl";
      if (!resume_.empty() && fs::exists(metrics)) read_metrics(metrics);  // or refuses, before it writes
      fs::create_directories(job_.run_dir);
      lock_ =
          std::make_unique<DirectoryLock>(job_.run_dir, [this](const std::string& why) { comm_.abort(why); });
      if (checkpoint_of(job_.config, job_.run_dir).value_or("") != resume_)
        throw ConfigError("run.dir", "another run has written to it since the start of this one",
                          "start again");
      if (resume_.empty())
        if (const auto aside = set_aside(job_.run_dir))
          progress_.say("beginning anew; what the earlier run wrote is in " + aside->string());
      if (saves()) fs::create_directories(checkpoints());
      for (const char* name : {"summary.json", "report.html"})  // of the end of the run
        if (fs::exists(job_.run_dir / name) && !fs::is_regular_file(job_.run_dir / name))
          throw ConfigError("run.dir", "expected a file or nothing, found another thing in the way: " +
                                           (job_.run_dir / name).string());
      metrics_ = std::make_unique<MetricsWriter>(job_.run_dir / "metrics.jsonl", first);
      recall(read_metrics(job_.run_dir / "metrics.jsonl"));
      job_.config.set_layout(layout_lines(job_.layout));
      write_config(job_.run_dir, job_.config,
                   fmt::format("mimo on {} ranks, layout {}\ncompiled {} with g++ {}", comm_.size(),
                               to_string(job_.layout), __DATE__, __VERSION__));
    } catch (const std::filesystem::filesystem_error& e) {
      throw ConfigError("run.dir", fmt::format("expected a directory that can be written, found {} ({})",
                                               (e.path1().empty() ? job_.run_dir : e.path1()).string(),
                                               e.code().message()));
    }
  }

  bool saves() const { return job_.config.get<int64_t>("checkpoint.every") > 0; }
  std::filesystem::path checkpoints() const { return job_.run_dir / "checkpoints"; }

  // Every rank writes its part of a checkpoint: it must see rank 0's directory and be able to write there.
  bool agree_on_directory() {
    if (!saves()) return true;
    const std::string lock = broadcast(comm_, lock_ ? lock_->text() : "", 0);
    return agree(comm_, [&] {
      for (const double end = now() + 3;; std::this_thread::sleep_for(std::chrono::milliseconds(50))) {
        try {
          if (lock_text(job_.run_dir) != lock)
            throw ConfigError(
                "run.dir",
                fmt::format("not shared by all ranks: expected on rank {} what rank 0 writes to {}, "
                            "found {}",
                            comm_.rank(), job_.run_dir.string(),
                            lock_text(job_.run_dir).empty() ? "nothing" : "another's"),
                "choose a directory on a shared file system, or --checkpoint.every=0");
          return check_writable(checkpoints(), "run.dir");
        } catch (const ConfigError&) {
          if (now() > end) throw;  // another machine may see new files late
        }
      }
    });
  }

  // What the run did before this process, so that summary and report tell of the whole run.
  void recall(const std::vector<StepMetrics>& lines) {
    for (const StepMetrics& m : lines) {
      note_step(m.step, m.loss, m.step_seconds, m.tokens);
      const std::map<std::string, double> more(m.more.begin(), m.more.end());
      const auto value = [&](const char* name) {
        const auto found = more.find(name);
        return found == more.end() ? std::nullopt : std::optional(found->second);
      };
      if (value(kSkipped)) ++skipped_;
      if (value(kHeldOutSamples) == static_cast<double>(curve_samples()))
        curve_point(m.step, value(kHeldOutLoss), value(kExactMatch));
    }
  }

  void note_step(int64_t step, std::optional<double> loss, double seconds, int64_t tokens) {
    last_loss_ = loss, train_seconds_ += seconds, tokens_ += tokens;
    if (loss) report_.loss.points.emplace_back(step, *loss);
  }

  // The curve over steps compares the same samples throughout.
  int64_t curve_samples() const {
    const int64_t all = job_.data->heldout.samples();
    return job_.config.get<int64_t>("eval.every") > 0
               ? std::min(job_.config.get<int64_t>("eval.samples"), all)
               : all;
  }
  void curve_point(int64_t step, std::optional<double> loss, std::optional<double> exact_match) {
    const auto add = [&](Series& series, std::optional<double> y) {
      const bool recalled = !series.points.empty() && series.points.back().first == static_cast<double>(step);
      if (y && !recalled) series.points.emplace_back(step, *y);
    };
    add(report_.held_out, loss);
    add(report_.exact_match, exact_match);
  }

  static std::vector<std::pair<std::string, std::string>> layout_lines(const Layout& layout) {
    std::vector<std::pair<std::string, std::string>> lines;
    for (const auto& [name, grid] : layout.modules) lines.emplace_back(name, to_string(grid));
    return lines;
  }

  template <class T>
  void combine(Trainer& trainer, std::vector<T>& values, ReduceOp op) {
    trainer.all_reduce(Buffer(values.data(), static_cast<int64_t>(values.size()), dtype_of<T>()), op,
                       "figures of all ranks");
  }

  void header(Trainer& trainer, int64_t first) {
    std::vector<double> parameters(job_.model.modules.size(), 0);
    for (Parameter* p : trainer.parameters())
      if (p->copies.front() == comm_.rank())
        parameters[static_cast<size_t>(job_.layout.index(p->name.substr(0, p->name.find('.'))))] +=
            static_cast<double>(p->value.numel());
    combine(trainer, parameters, ReduceOp::sum);
    for (size_t m = 0; m < parameters.size(); ++m)
      progress_.say(fmt::format("{:10} {:>10} parameters on {}", job_.model.modules[m]->name,
                                static_cast<int64_t>(parameters[m]),
                                to_string(job_.layout.modules[m].second)));
    progress_.say("device: " + trainer.device());
    progress_.say(fmt::format("step: {} samples in {} waves; {} training and {} held-out samples; run in {}",
                              job_.global_batch(), job_.waves, job_.data->train.samples(),
                              job_.data->heldout.samples(), job_.run_dir.string()));
    progress_.say("planned step: " + planned_->text());
    progress_.say("rates of a rank: " + rates_.text());
    if (!resume_.empty()) {
      progress_.say(fmt::format("resuming after step {} from {}", first, resume_.string()));
      for (const Difference& d : changes_)
        progress_.say(fmt::format("  changed: {} was {}, is {}", d.key, d.before, d.now));
      const auto all = list_checkpoints(job_.run_dir / "checkpoints");
      if (!all.empty() && all.rbegin()->first > first)
        progress_.say(fmt::format("the next checkpoint replaces those of steps {} to {}",
                                  all.upper_bound(first)->first, all.rbegin()->first));
      if (first >= job_.config.get<int64_t>("train.steps"))
        progress_.say("nothing left to train; --resume=never begins anew");
    }
  }

  // Gathers the clocks of all ranks: for every module the busiest rank's, and the share of time ranks wait.
  ModuleTimes module_times(Trainer& trainer, const std::vector<double>& seconds, double wall, double steps) {
    std::vector<double> most = seconds, busy{0, wall};
    for (size_t i = 0; i + 1 < seconds.size(); ++i) busy[0] += seconds[i];  // the last entry is waiting
    combine(trainer, most, ReduceOp::max);
    combine(trainer, busy, ReduceOp::sum);
    ModuleTimes t;
    if (steps == 0) return t;
    const size_t modules = job_.model.modules.size();
    for (size_t m = 0; m < modules; ++m) {
      t.rows.emplace_back(job_.model.modules[m]->name + " forward", 1000 * most[2 * m] / steps);
      t.rows.emplace_back(job_.model.modules[m]->name + " backward", 1000 * most[2 * m + 1] / steps);
    }
    t.rows.emplace_back("reduce", 1000 * most[2 * modules] / steps);
    t.rows.emplace_back("update", 1000 * most[2 * modules + 1] / steps);
    t.rows.emplace_back("waiting", 1000 * most[2 * modules + 2] / steps);
    t.idle = std::max(0.0, 1 - busy[0] / busy[1]);
    t.step = wall / steps;
    return t;
  }

  // Of the samples of the curve, after a step.
  Evaluation evaluate_curve(Trainer& trainer, TimeLeft& time) {
    const double start = now();
    Evaluation e = trainer.evaluate(0, curve_samples());
    time.evaluated(now() - start, e.samples);
    progress_.say(fmt::format("held out after step {}: {}", trainer.steps_done(), e.text()));
    curve_point(trainer.steps_done(), e.loss(), e.exact_match());
    return e;
  }

  // The last steps that were skipped, one after another.
  struct Skips {
    int64_t count = 0, first = 0;
    std::string what;  // was not finite in the first one
  };

  // Why the run cannot go on, in words for people; collective.
  std::string divergence(Trainer& trainer, const Skips& skips) {
    const int64_t most = job_.config.get<int64_t>("train.max_skips");
    std::string text = "the run diverged";
    if (skips.count > 0) text += fmt::format(": {} of step {} were not finite", skips.what, skips.first);
    if (skips.count == most)
      text += fmt::format(", nor were those of any step to {} (train.max_skips: {} in a row)",
                          trainer.steps_done(), most);
    const std::string bad = trainer.non_finite_state();
    text += bad.empty() ? "; weights and moments are finite"
                        : fmt::format("; not finite after step {} are {}", trainer.steps_done(), bad);
    const auto kept = list_checkpoints(job_.run_dir / "checkpoints");
    text += kept.empty() ? "; there is no checkpoint"
                         : fmt::format("; the newest checkpoint is that of step {}, of finite numbers",
                                       kept.rbegin()->first);
    return text + ". hint: a smaller train.lr, a longer train.warmup";
  }

  int loop(Trainer& trainer, int64_t first) {
    const Config& c = job_.config;
    const int64_t steps = c.get<int64_t>("train.steps"), eval_every = c.get<int64_t>("eval.every"),
                  save_every = c.get<int64_t>("checkpoint.every"),
                  log_every = std::max<int64_t>(1, steps / 30);
    std::vector<double> total(trainer.clock().seconds().size(), 0.0), recent = total;
    double seconds_here = 0, recent_seconds = 0;  // of this process
    int64_t recent_tokens = 0, recent_steps = 0, saved = first;
    std::optional<Evaluation> curve;  // of the last step
    std::vector<Column> detail;
    std::string diverged;  // why, or empty
    bool stopped = false, due = false;
    Skips skips;
    TimeLeft time(
        {steps, job_.global_batch(), eval_every, curve_samples(), job_.data->heldout.samples(), save_every});
    const auto save = [&] {
      const double since = now();
      try {
        trainer.save();
        saved = trainer.steps_done(), due = false;
      } catch (const NotFinite&) {
        diverged = divergence(trainer, skips);
      }
      time.saved(now() - since);
    };
    while (trainer.steps_done() < steps && !stopped && diverged.empty()) {
      trainer.clock().reset();
      std::optional<LaunchProfile> launches;
      if (line_.profile) launches.emplace();
      const double start = now();
      const StepResult r = trainer.step();
      trainer.watched("the device's work of a step", [&] { trainer.clock().seconds(); });
      const std::vector<double>& clock = trainer.clock().seconds();
      const double seconds = now() - start;
      if (launches) profile_.add(*launches, clock, seconds, r.tokens);
      time.stepped(seconds);
      seconds_here += seconds, recent_seconds += seconds, recent_tokens += r.tokens, ++recent_steps;
      for (size_t i = 0; i < total.size(); ++i) total[i] += clock[i], recent[i] += clock[i];
      note_step(r.step, r.loss, seconds, r.tokens);
      stopped = r.stop;

      StepMetrics m{
          r.step, r.loss, r.tokens, r.grad_norm, r.lr, seconds, static_cast<double>(r.tokens) / seconds, {}};
      const double speed = static_cast<double>(recent_tokens) / recent_seconds;
      const bool line_here = r.step % log_every == 0 || r.step == steps;
      if (line_here) {
        const ModuleTimes t =
            module_times(trainer, recent, recent_seconds, static_cast<double>(recent_steps));
        std::string modules;
        for (const auto& [name, ms] : t.rows) {
          m.more.emplace_back("ms " + name, ms);
          if (name.ends_with("forward"))
            modules += fmt::format("{} {:.1f}", name.substr(0, name.find(' ')), ms);
          if (name.ends_with("backward")) modules += fmt::format(" + {:.1f} ", ms);
        }
        m.more.emplace_back("idle", *t.idle);
        detail = {{5, modules + "ms", ""}, {4, fmt::format("idle {:.0f} %", 100 * *t.idle), ""}};
        std::fill(recent.begin(), recent.end(), 0.0);
        recent_seconds = 0, recent_tokens = 0, recent_steps = 0;
      }
      if (r.not_finite.empty()) {
        skips = {};
      } else {
        if (skips.count++ == 0) skips.first = r.step, skips.what = r.not_finite;
        ++skipped_;
        m.more.emplace_back(kSkipped, 1);
      }
      curve.reset();
      if (eval_every > 0 && (r.step % eval_every == 0 || r.step == steps) && !stopped) {
        curve = evaluate_curve(trainer, time);
        m.more.emplace_back(kHeldOutSamples, static_cast<double>(curve->samples));
        if (const auto loss = curve->loss()) m.more.emplace_back(kHeldOutLoss, *loss);
        if (const auto share = curve->exact_match()) m.more.emplace_back(kExactMatch, *share);
      }
      if (comm_.rank() == 0) metrics_->write(m);
      std::vector<Column> columns = {
          {0, fmt::format("step {}/{}", r.step, steps), fmt::format("{}/{}", r.step, steps)},
          {1, "loss " + figure_text(r.loss)},
          {3, fmt::format("{:.0f} tokens/s", speed), fmt::format("{:.0f}/s", speed)},
          {2, time_text(time.after(r.step)) + " left"}};
      columns.insert(columns.end(), detail.begin(), detail.end());
      if (!r.not_finite.empty())
        columns.push_back({1, "(skipped: " + r.not_finite + " not finite)", "(skipped)"});
      progress_.update(columns, line_here);
      if (skips.count == c.get<int64_t>("train.max_skips")) diverged = divergence(trainer, skips);
      // Not while steps are skipped: nothing has changed since a checkpoint that this one might displace.
      due = due || (save_every > 0 && r.step % save_every == 0);
      if (due && skips.count == 0) save();
    }
    if (diverged.empty() && saved != trainer.steps_done()) {
      if (save_every > 0)
        save();
      else if (!trainer.non_finite_state().empty())
        diverged = divergence(trainer, skips);
    }
    if (stopped && diverged.empty()) {
      progress_.say(fmt::format(
          "stopped by a signal after step {}; {}", trainer.steps_done(),
          save_every > 0 ? "the same command resumes" : "no checkpoint, as checkpoint.every is 0"));
      return 0;
    }
    if (!diverged.empty())
      curve = Evaluation();
    else if (!curve)
      curve = evaluate_curve(trainer, time);
    finish(trainer, *curve, first, seconds_here, total, diverged);
    trainer.watched("the report of rank 0", [&] { comm_.barrier(); });
    if (!diverged.empty()) throw AgreedError(diverged);
    return 0;
  }

  // e: of the samples of the curve, after the last step. A run that has diverged has nothing to evaluate.
  void finish(Trainer& trainer, Evaluation e, int64_t first, double seconds_here,
              const std::vector<double>& seconds, const std::string& diverged) {
    if (diverged.empty()) e.append(trainer.evaluate(e.samples, job_.data->heldout.samples()));
    const int64_t steps = trainer.steps_done() - first;  // of this process
    const ModuleTimes times = module_times(trainer, seconds, seconds_here, static_cast<double>(steps));
    // Peak memory of every module, of the rank that needs most.
    std::vector<std::string> labels = job_.model.names();
    labels.push_back("optimizer");
    std::vector<double> peaks;
    const auto statistics = memory_statistics();
    for (const std::string& label : labels)
      peaks.push_back(statistics.count(label) ? static_cast<double>(statistics.at(label).peak) : 0);
    combine(trainer, peaks, ReduceOp::max);
    const std::vector<std::vector<int32_t>> readings = sample_readings(trainer, e);
    const std::string profile = line_.profile ? profile_.tables(comm_, job_.model.names()) : "";
    if (comm_.rank() != 0) return;

    show(e, readings);
    const std::filesystem::path summary = job_.run_dir / "summary.json", page = job_.run_dir / "report.html";
    if (steps > 0 || !std::filesystem::exists(summary) || !std::filesystem::exists(page)) {
      write(trainer, e, peaks, times, diverged, summary);
      fill_report(trainer, e, readings, times, diverged);
      write_report(report_, page);
      if (times.idle)
        progress_.say(fmt::format("trained {} steps in {}, {} tokens/s, ranks idle {:.0f} % of the time",
                                  trainer.steps_done(), time_text(train_seconds_),
                                  figure_text(tokens_per_second(), 0), 100 * *times.idle));
    }
    std::string lengths;
    for (const auto& [length, figure] : e.by_length)
      lengths += fmt::format("  {}: {:.3f}", length,
                             static_cast<double>(figure.first) / static_cast<double>(figure.second));
    if (!lengths.empty()) progress_.say("exact match by length" + lengths);
    if (diverged.empty()) progress_.say(fmt::format("held out, all {} samples: {}", e.samples, e.text()));
    progress_.say("report: " + page.string());
    if (line_.profile) progress_.say(profile);
  }

  std::optional<double> tokens_per_second() const {
    if (train_seconds_ == 0) return std::nullopt;
    return static_cast<double>(tokens_) / train_seconds_;
  }

  void write(Trainer& trainer, const Evaluation& e, const std::vector<double>& peaks,
             const ModuleTimes& times, const std::string& diverged, const std::filesystem::path& file) {
    using Json = nlohmann::ordered_json;
    const auto value = [](std::optional<double> v) { return v ? Json(*v) : Json(); };  // else null
    std::vector<std::string> labels = job_.model.names();
    labels.push_back("optimizer");
    Json s;
    s["status"] = diverged.empty() ? "finished" : "diverged";
    if (!diverged.empty()) s["reason"] = diverged;
    s["steps"] = trainer.steps_done();
    s["skipped_steps"] = skipped_;
    s["final_loss"] = value(last_loss_);
    s["train_seconds"] = train_seconds_;
    s["tokens_per_second"] = value(tokens_per_second());
    for (size_t i = 0; i < labels.size(); ++i)
      s["peak_memory_bytes"][labels[i]] = static_cast<int64_t>(peaks[i]);
    s["layout"] = to_string(job_.layout);
    s["ranks"] = comm_.size();
    s["device"] = job_.device.kind == Device::Kind::cuda ? "cuda" : "cpu";
    s["idle"] = value(times.idle);
    s["step_seconds"] = {{"planned", planned_->timeline.makespan}, {"measured", value(times.step)}};
    s["machine"] = {{"flops", rates_.rates.flops},
                    {"memory", rates_.rates.memory},
                    {"latency", rates_.rates.latency},
                    {"bandwidth", rates_.rates.bandwidth}};
    for (const auto& [name, ms] : times.rows) s["milliseconds_per_step"][name] = ms;
    s["eval"]["samples"] = e.samples;
    s["eval"]["exact_match"] = value(e.exact_match());
    s["eval"]["exact_match_samples"] = e.headline;
    for (const auto& [length, figure] : e.by_length)
      s["eval"]["by_length"][std::to_string(length)] =
          static_cast<double>(figure.first) / static_cast<double>(figure.second);
    for (const auto& [kind, figure] : e.by_kind)
      s["eval"]["by_kind"][kind] = static_cast<double>(figure.first) / static_cast<double>(figure.second);
    s["eval"]["loss"] = value(e.loss());
    write_summary(file, s);
  }

  // What was read on the held-out samples that are shown, brought to all ranks.
  std::vector<int64_t> shown(const Evaluation& e) const {
    const int64_t n = e.samples;
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < n && ids.size() < 24; i += std::max<int64_t>(1, n / 24)) ids.push_back(i);
    const std::set<int64_t> there(ids.begin(), ids.end());
    for (int64_t i = 0; i < n && ids.size() < 36; ++i)
      if (!e.right[static_cast<size_t>(i)] && !there.contains(i)) ids.push_back(i);
    return ids;
  }
  std::vector<std::vector<int32_t>> sample_readings(Trainer& trainer, const Evaluation& e) {
    constexpr size_t kMost = 64;
    const std::vector<int64_t> ids = shown(e);
    std::vector<int32_t> flat(ids.size() * kMost, -1);
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto& reading = e.readings[static_cast<size_t>(ids[i])];
      std::copy(reading.begin(), reading.begin() + static_cast<int64_t>(std::min(kMost, reading.size())),
                flat.begin() + static_cast<int64_t>(i * kMost));
    }
    combine(trainer, flat, ReduceOp::max);
    std::vector<std::vector<int32_t>> out(ids.size());
    for (size_t i = 0; i < ids.size(); ++i)
      for (size_t k = 0; k < kMost && flat[i * kMost + k] >= 0; ++k) out[i].push_back(flat[i * kMost + k]);
    return out;
  }

  ReadImage read_image(int64_t id, const std::vector<int32_t>& reading) const {
    const Sample s = job_.data->heldout.read(id);
    ReadImage r;
    for (const Sample::Item& item : s.items) r.png.push_back(encode_png(item.image));
    std::vector<int32_t> prompt, answer;
    for (size_t t = 0; t < s.tokens.size(); ++t) (s.counted[t] ? answer : prompt).push_back(s.tokens[t]);
    const auto plain = [](std::vector<int32_t> tokens) {
      std::erase_if(tokens, [](int32_t t) { return t == Tokenizer::begin || t == Tokenizer::end; });
      return printable(Tokenizer::decode(tokens));
    };
    r.prompt = plain(prompt);
    r.expected = plain(answer);
    r.reading = plain(reading);
    return r;
  }

  void show(const Evaluation& e, const std::vector<std::vector<int32_t>>& readings) {
    const std::vector<int64_t> ids = shown(e);
    for (size_t i = 0, drawn = 0; i < ids.size() && drawn < 4; ++i) {
      const Sample s = job_.data->heldout.read(ids[i]);
      if (s.items.empty()) continue;
      const ReadImage r = read_image(ids[i], readings[i]);
      progress_.say("");
      for (const Sample::Item& item : s.items) progress_.say(draw(item.image));
      progress_.say(
          fmt::format("  reads \"{}\"{}", r.reading, r.right() ? "" : ", is \"" + r.expected + "\""));
      ++drawn;
    }
    progress_.say("");
  }

  void fill_report(Trainer& trainer, const Evaluation& e, const std::vector<std::vector<int32_t>>& readings,
                   const ModuleTimes& times, const std::string& diverged) {
    report_.title = "mimo run " + job_.run_dir.filename().string();
    report_.loss.name = "training";
    report_.held_out.name = fmt::format("the first {} held out", curve_samples());
    report_.exact_match.name = fmt::format("Exact match of the first {} held-out samples", curve_samples());
    report_.figures = {
        {fmt::format("exact match on {} held-out samples", e.headline), figure_text(e.exact_match())},
        {fmt::format("loss on all {} held-out samples", e.samples), figure_text(e.loss())},
        {"steps", std::to_string(trainer.steps_done())},
        {"training time", time_text(train_seconds_)},
        {"tokens a second", figure_text(tokens_per_second(), 0)}};
    std::string kinds;
    for (const auto& [kind, figure] : e.by_kind)
      kinds +=
          fmt::format("{}{}: {} of {} right", kinds.empty() ? "" : ", ", kind, figure.first, figure.second);
    report_.facts = {
        {"status", diverged.empty() ? "finished" : diverged},
        {"skipped steps", std::to_string(skipped_)},
        {"ranks", std::to_string(comm_.size()) +
                      (times.idle ? fmt::format(", idle {:.0f} % of the time", 100 * *times.idle) : "")},
        {"a step",
         fmt::format("{} samples in {} wave{}", job_.global_batch(), job_.waves, job_.waves == 1 ? "" : "s")},
        {"planned step", planned_->text()},
        {"measured step",
         times.step ? fmt::format("{:.2f} ms", 1000 * *times.step) : figure_text(times.step)},
        {"rates of a rank", rates_.text()},
        {"held out", kinds},
        {"data", job_.config.get<std::string>("data.path")},
        {"source", job_.data->header.license}};
    report_.module_ms = times.rows;
    for (const auto& [length, figure] : e.by_length)
      report_.by_length.emplace_back(std::to_string(length),
                                     static_cast<double>(figure.first) / static_cast<double>(figure.second));
    for (const auto& [name, grid] : job_.layout.modules) report_.layout.emplace_back(name, to_string(grid));
    report_.plan_svg = draw_svg(planned_->plan, planned_->graph, planned_->timeline, {1000, "ms"});
    report_.plan_note = fmt::format(
        "One step as planned ({}): {}. Its times are counts of operations, bytes and messages at "
        "the rates above. Numbers are waves.",
        planned_->plan.choice, planned_->text());
    const std::vector<int64_t> ids = shown(e);
    for (size_t i = 0; i < ids.size(); ++i) report_.images.push_back(read_image(ids[i], readings[i]));
  }

  CommandLine line_;
  World& world_;
  Communicator& comm_;
  Progress progress_;
  Job job_;
  std::filesystem::path resume_;
  std::vector<Difference> changes_;  // since the checkpoint
  MachineRates rates_;
  std::optional<PlannedStep> planned_;
  std::unique_ptr<DirectoryLock> lock_;  // on rank 0
  std::unique_ptr<MetricsWriter> metrics_;
  Report report_;
  std::optional<double> last_loss_;  // of the whole run, as are the following
  double train_seconds_ = 0;
  int64_t tokens_ = 0, skipped_ = 0;
  StepProfile profile_;
};

}  // namespace

// A thread waits for the signals; no handler may run, as it could interrupt a library that is not made for it
// (one during a product of oneDNN 2.6.3, when products were its, corrupted the heap).
void stop_on_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  struct sigaction interrupt {};
  sigaction(SIGINT, nullptr, &interrupt);
  if (interrupt.sa_handler != SIG_IGN) sigaddset(&signals, SIGINT);  // a script's background job ignores it
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);                     // of all threads that this one starts
  std::thread([signals] {
    for (int signal = 0; sigwait(&signals, &signal) == 0;)
      if (signal == SIGINT && Trainer::stop_requested.exchange(true))
        std::_Exit(128 + SIGINT);  // a second Ctrl-C: at once
      else
        Trainer::stop_requested = true;
  }).detach();
}

int train(const CommandLine& line, World& world) { return TrainingRun(line, world)(); }

}  // namespace mimo
