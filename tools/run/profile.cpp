#include "tools/run/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "parallel/buffers.h"
#include "tensor/text.h"

namespace mimo {

void StepProfile::add(const LaunchProfile& launches, const std::vector<double>& clock, double wall,
                      int64_t tokens) {
  constexpr int64_t kWarmUp = 10;
  if (++seen_ <= kWarmUp) return;
  walls_.push_back(wall);
  tokens_ += tokens;
  clock_.resize(clock.size());
  for (size_t i = 0; i < clock.size(); ++i) clock_[i] += clock[i];
  for (const auto& [key, entry] : launches.entries()) {
    LaunchProfile::Entry& e = kernels_[key];
    e.calls += entry.calls;
    e.seconds += entry.seconds;
    e.flop += entry.flop;
  }
}

std::string StepProfile::table(int rank, const std::vector<std::string>& modules) const {
  if (walls_.empty()) return "";
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

std::string StepProfile::tables(Communicator& world, const std::vector<std::string>& modules) const {
  const std::vector<std::string> all = all_gather(world, table(world.rank(), modules));
  return world.rank() == 0 ? joined(all, "") : "";
}

}  // namespace mimo
