// What a run reports: metrics.jsonl, one JSON object a line and step, and summary.json at the end.
// Floats are written in the shortest form that reads back to the same double. JSON has no word for what is
// not finite: those are the strings "NaN", "Infinity" and "-Infinity". What has no value is null.
#pragma once
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mimo {

struct StepMetrics {
  int64_t step = 0;
  std::optional<double> loss;  // mean over the step's counted tokens; none where nothing counts
  int64_t tokens = 0;          // that the language model read in this step
  double grad_norm = 0, lr = 0, step_seconds = 0, tokens_per_second = 0;
  std::vector<std::pair<std::string, double>> more;  // further values by name, in this order

  std::optional<double> value(std::string_view name) const;  // of `more`
  bool operator==(const StepMetrics&) const = default;
};

std::string to_json(const StepMetrics&);

class MetricsWriter {
 public:
  // Goes on after `last_step`: cuts the file to the lines of steps up to it (0: begins anew), so that a
  // resumed run leaves the file an uninterrupted one would. A line torn by a crash goes too.
  explicit MetricsWriter(const std::filesystem::path&, int64_t last_step = 0);
  void write(const StepMetrics&);  // the line is with the system when this returns; steps must rise

 private:
  std::string place_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  int64_t step_ = 0;
};

// All complete lines; a torn last one is left out. Throws ConfigError naming the line that is no such object.
std::vector<StepMetrics> read_metrics(const std::filesystem::path&);

// Replaces the file in one act.
void write_summary(const std::filesystem::path&, const nlohmann::ordered_json&);

}  // namespace mimo
