// metrics.jsonl: a line a step.
#include "tools/run/run_observer.h"

namespace mimo {
namespace {

constexpr const char* kFile = "metrics.jsonl";

class Metrics : public RunObserver {
 public:
  explicit Metrics(const RunContext& run) : lines_(run.job.run_dir / kFile, run.first) {}
  void recorded(const StepRecord& record) override { lines_.write(record.metrics); }

 private:
  MetricsWriter lines_;
};

const Registry<RunObserverKind>::Entry entry{
    {.name = "metrics", .order = 10, .file = kFile, .make = on_rank_0<Metrics>}};

}  // namespace
}  // namespace mimo
