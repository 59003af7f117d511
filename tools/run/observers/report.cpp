// report.html: one page on a run at its end, with its curves.
#include "tools/run/report.h"

#include <fmt/format.h>

#include "parallel/draw.h"
#include "tools/run/run_observer.h"

namespace mimo {
namespace {

constexpr const char* kFile = "report.html";

std::string capitalized(std::string text) {
  if (!text.empty()) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text;
}

class Page : public RunObserver {
 public:
  explicit Page(const RunContext& run) : run_(run) {
    for (const StepMetrics& m : run.history) add(m);
  }
  void recorded(const StepRecord& record) override { add(record.metrics); }
  // Also of the evaluation at the end, which belongs to no record.
  void evaluated(int64_t step, const Evaluation& e, double) override {
    curve_point(step, e.loss(), e.figure());
  }
  void finished(const RunEnd& end) override {
    const std::filesystem::path file = run_.job.run_dir / kFile;
    if (end.steps_here > 0 || !std::filesystem::exists(file)) {
      fill(end);
      write_report(report_, file);
    }
    run_.progress.say("report: " + file.string());
  }

 private:
  void add(const StepMetrics& m) {
    if (m.loss) report_.loss.points.emplace_back(m.step, *m.loss);
    if (m.value(kHeldOutSamples) == static_cast<double>(run_.curve_samples()))
      curve_point(m.step, m.value(kHeldOutLoss), m.value(held_out_figure(*run_.job.task)));
  }
  void curve_point(int64_t step, std::optional<double> loss, std::optional<double> figure) {
    const auto add = [&](Series& series, std::optional<double> y) {
      const bool there = !series.points.empty() && series.points.back().first == static_cast<double>(step);
      if (y && !there) series.points.emplace_back(step, *y);
    };
    add(report_.held_out, loss);
    add(report_.figure, figure);
  }

  void fill(const RunEnd& end) {
    const Job& job = run_.job;
    const RunTotals& totals = run_.totals;
    const ModuleTimes& times = end.times;
    const Evaluation& e = end.evaluation;
    report_.title = "mimo run " + job.run_dir.filename().string();
    report_.loss.name = "training";
    report_.held_out.name = fmt::format("the first {} held out", run_.curve_samples());
    report_.task = job.task->title;
    report_.figure.name =
        fmt::format("{} of the first {} held-out samples", capitalized(report_.task), run_.curve_samples());
    report_.figures = {
        {fmt::format("{} on {} held-out samples", report_.task, e.headline), figure_text(e.figure())},
        {fmt::format("loss on all {} held-out samples", e.samples()), figure_text(e.loss())},
        {"steps", std::to_string(end.step)},
        {"training time", time_text(totals.seconds)},
        {"tokens a second", figure_text(totals.tokens_per_second(), 0)}};
    std::string kinds;
    for (const auto& g : e.by_kind())
      kinds += fmt::format("{}{}: {:.4f} of {}", kinds.empty() ? "" : ", ", g.name, g.figure, g.samples);
    report_.facts = {
        {"status", end.diverged.empty() ? "finished" : end.diverged},
        {"skipped steps", std::to_string(totals.skipped)},
        {"ranks", std::to_string(run_.world.size()) +
                      (times.idle ? fmt::format(", idle {:.0f} % of the time", 100 * *times.idle) : "")},
        {"a step",
         fmt::format("{} samples in {} wave{}", job.global_batch(), job.waves, job.waves == 1 ? "" : "s")},
        {"planned step", run_.planned->text()},
        {"measured step",
         times.step ? fmt::format("{:.2f} ms", 1000 * *times.step) : figure_text(times.step)},
        {"rates of a rank", run_.rates.text()},
        {"held out", kinds},
        {"data", job.config.get<std::string>("data.path")},
        {"source", job.data->header.license}};
    report_.module_ms = times.rows;
    for (const auto& g : e.by_length()) report_.by_length.emplace_back(g.name, g.figure);
    for (const auto& [name, grid] : job.layout.modules) report_.layout.emplace_back(name, to_string(grid));
    report_.plan_svg =
        draw_svg(run_.planned->plan, run_.planned->graph, run_.planned->timeline, {1000, "ms"});
    report_.plan_note = fmt::format(
        "One step as planned ({}): {}. Its times are counts of operations, bytes and messages at "
        "the rates above. Numbers are waves.",
        run_.planned->plan.choice, run_.planned->text());
    for (const ShownSample& s : end.shown) report_.images.push_back(read_image(*job.data, s));
  }

  const RunContext& run_;
  Report report_;
};

const Registry<RunObserverKind>::Entry entry{
    {.name = "report", .order = 30, .file = kFile, .make = on_rank_0<Page>}};

}  // namespace
}  // namespace mimo
