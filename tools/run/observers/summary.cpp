// summary.json: the figures of a run at its end.
#include <nlohmann/json.hpp>

#include "tools/run/run_observer.h"

namespace mimo {
namespace {

constexpr const char* kFile = "summary.json";

class Summary : public RunObserver {
 public:
  explicit Summary(const RunContext& run) : run_(run) {}

  void finished(const RunEnd& end) override {
    const std::filesystem::path file = run_.job.run_dir / kFile;
    if (end.steps_here > 0 || !std::filesystem::exists(file)) write_summary(file, summary(end));
  }

 private:
  using Json = nlohmann::ordered_json;

  Json summary(const RunEnd& end) const {
    const auto value = [](std::optional<double> v) { return v ? Json(*v) : Json(); };  // else null
    const Evaluation& e = end.evaluation;
    const Rates& rates = run_.rates.rates;
    Json s;
    s["status"] = end.diverged.empty() ? "finished" : "diverged";
    if (!end.diverged.empty()) s["reason"] = end.diverged;
    s["steps"] = end.step;
    s["skipped_steps"] = run_.totals.skipped;
    s["final_loss"] = value(run_.totals.last_loss);
    s["train_seconds"] = run_.totals.seconds;
    s["tokens_per_second"] = value(run_.totals.tokens_per_second());
    for (const auto& [label, bytes] : end.peaks) s["peak_memory_bytes"][label] = static_cast<int64_t>(bytes);
    s["layout"] = to_string(run_.job.layout);
    s["ranks"] = run_.world.size();
    s["device"] = run_.job.device.kind == Device::Kind::cuda ? "cuda" : "cpu";
    s["idle"] = value(end.times.idle);
    s["step_seconds"] = {{"planned", run_.planned->timeline.makespan}, {"measured", value(end.times.step)}};
    s["machine"] = {{"flops", rates.flops},
                    {"memory", rates.memory},
                    {"latency", rates.latency},
                    {"bandwidth", rates.bandwidth}};
    for (const auto& [name, ms] : end.times.rows) s["milliseconds_per_step"][name] = ms;
    s["eval"]["samples"] = e.samples();
    s["eval"]["task"] = e.task->name;
    s["eval"][e.task->name] = value(e.figure());
    s["eval"][e.task->name + "_samples"] = e.headline;
    for (const auto& g : e.by_length()) s["eval"]["by_length"][g.name] = g.figure;
    for (const auto& g : e.by_kind()) s["eval"]["by_kind"][g.name] = g.figure;
    s["eval"]["loss"] = value(e.loss());
    return s;
  }

  const RunContext& run_;
};

const Registry<RunObserverKind>::Entry entry{
    {.name = "summary", .order = 10, .file = kFile, .make = on_rank_0<Summary>}};

}  // namespace
}  // namespace mimo
