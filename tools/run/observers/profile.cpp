// --profile: where the time of training steps goes on every rank, by module and kind of work, and by kernel.
#include "tensor/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "parallel/buffers.h"
#include "tensor/text.h"
#include "tools/run/run_observer.h"

namespace mimo {
namespace {

class Profile : public RunObserver {
 public:
  explicit Profile(const RunContext& run) : run_(run) {}

  void begin_step() override { launches_.emplace(); }
  void end_step(const StepResult& result, double seconds, const std::vector<double>& clock) override {
    add(seconds, clock, result.tokens);
    launches_.reset();
  }
  void finished(const RunEnd&) override {
    const std::vector<std::string> all = all_gather(run_.world, table());  // of every rank
    run_.progress.say(joined(all, ""));                                    // on rank 0
  }

 private:
  // The first ten steps are left out: they fill caches.
  void add(double wall, const std::vector<double>& clock, int64_t tokens);
  std::string table() const;

  const RunContext& run_;
  std::optional<LaunchProfile> launches_;                                        // of the step in hand
  std::map<std::pair<std::string, std::string>, LaunchProfile::Entry> kernels_;  // module, op
  std::vector<double> clock_, walls_;
  int64_t seen_ = 0, tokens_ = 0;
};

void Profile::add(double wall, const std::vector<double>& clock, int64_t tokens) {
  constexpr int64_t kWarmUp = 10;
  if (++seen_ <= kWarmUp) return;
  walls_.push_back(wall);
  tokens_ += tokens;
  clock_.resize(clock.size());
  for (size_t i = 0; i < clock.size(); ++i) clock_[i] += clock[i];
  for (const auto& [key, entry] : launches_->entries()) {
    LaunchProfile::Entry& e = kernels_[key];
    e.calls += entry.calls;
    e.seconds += entry.seconds;
    e.flop += entry.flop;
  }
}

std::string Profile::table() const {
  if (walls_.empty()) return "";
  const int rank = run_.world.rank();
  const std::vector<std::string> modules = run_.job.model.names();
  const double steps = static_cast<double>(walls_.size()),
               wall = std::accumulate(walls_.begin(), walls_.end(), 0.0);
  std::vector<double> sorted = walls_;
  std::sort(sorted.begin(), sorted.end());
  std::string out;
  if (rank == 0)
    out =
        fmt::format("\nprofile of {} steps: {:.0f} tokens/s, {:.2f} ms a step (median {:.2f})\n", steps,
                    static_cast<double>(tokens_) / wall, 1e3 * wall / steps, 1e3 * sorted[sorted.size() / 2]);
  const auto row = [&](const std::string& name, double seconds, const std::string& calls, double flop) {
    if (seconds > 0)
      out += fmt::format("  {:<44} {:>9.3f} {:>6.1f} % {:>8} {:>9}\n", name, 1e3 * seconds / steps,
                         100 * seconds / wall, calls,
                         flop > 0 ? fmt::format("{:.1f}", flop / seconds / 1e9) : "");
  };
  out += fmt::format("rank {}\n  {:<44} {:>9} {:>8} {:>8} {:>9}\n", rank, "", "ms a step", "of wall", "calls",
                     "GFLOP/s");
  const size_t rest = 2 * modules.size();
  for (size_t m = 0; m < modules.size(); ++m) {
    row(modules[m] + " forward", clock_[2 * m], "", 0);
    row(modules[m] + " backward", clock_[2 * m + 1], "", 0);
  }
  row("reduce", clock_[rest], "", 0);
  row("update", clock_[rest + 1], "", 0);
  row("waiting for other ranks", clock_[rest + 2], "", 0);
  row("between actions, or other processes' turn",
      std::max(0.0, wall - std::accumulate(clock_.begin(), clock_.end(), 0.0)), "", 0);

  std::vector<std::pair<std::pair<std::string, std::string>, LaunchProfile::Entry>> by_time(kernels_.begin(),
                                                                                            kernels_.end());
  std::sort(by_time.begin(), by_time.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  double in_kernels = 0;
  for (const auto& [key, e] : by_time) in_kernels += e.seconds;
  const double working = wall - clock_[rest + 2];
  out += fmt::format("  of the {:.2f} ms a step that it works, {:.2f} in kernels:\n", 1e3 * working / steps,
                     1e3 * in_kernels / steps);
  for (const auto& [key, e] : by_time)
    row("    " + (key.first == "other" ? "" : key.first + " ") + key.second, e.seconds,
        fmt::format("{:.0f}", static_cast<double>(e.calls) / steps), e.flop);
  return out;
}

const Registry<RunObserverKind>::Entry entry{
    {.name = "profile", .order = 40, .make = [](const RunContext& run) -> std::unique_ptr<RunObserver> {
       return run.line.profile ? std::make_unique<Profile>(run) : nullptr;
     }}};

}  // namespace
}  // namespace mimo
