#include "io/metrics.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "io/file.h"
#include "tensor/error.h"

namespace mimo {
namespace {

using Json = nlohmann::ordered_json;

std::string number(double v) {
  if (std::isnan(v)) return "\"NaN\"";
  if (std::isinf(v)) return v > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  char buffer[32];
  return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, v).ptr);
}

double number(const Json& j) {
  if (j.is_number()) return j.get<double>();
  const auto& s = j.get_ref<const std::string&>();
  if (s == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (s == "Infinity") return std::numeric_limits<double>::infinity();
  if (s == "-Infinity") return -std::numeric_limits<double>::infinity();
  throw std::invalid_argument("expected a number, found \"" + s + '"');
}

// The step's fixed values by name, to write and to read.
template <class Metrics>
auto fixed_values(Metrics& m) {
  using Value = std::conditional_t<std::is_const_v<Metrics>, const double, double>;
  return std::array<std::pair<const char*, Value*>, 4>{{{"grad_norm", &m.grad_norm},
                                                        {"lr", &m.lr},
                                                        {"step_seconds", &m.step_seconds},
                                                        {"tokens_per_second", &m.tokens_per_second}}};
}

StepMetrics from_json(const Json& j) {
  StepMetrics m;
  m.step = j.at("step").get<int64_t>();
  if (!j.at("loss").is_null()) m.loss = number(j.at("loss"));
  m.tokens = j.at("tokens").get<int64_t>();
  for (const auto& [name, value] : fixed_values(m)) *value = number(j.at(name));
  for (const auto& [name, value] : j.items()) {
    const auto known = fixed_values(m);
    const bool fixed = name == "step" || name == "loss" || name == "tokens" ||
                       std::any_of(known.begin(), known.end(), [&](auto& k) { return name == k.first; });
    if (!fixed) m.more.emplace_back(name, number(value));
  }
  return m;
}

struct Line {
  StepMetrics metrics;
  size_t end;  // bytes of the file up to the end of this line
};

std::vector<Line> read_lines(const std::filesystem::path& path) {
  const std::string text = read_text(path);
  std::vector<Line> lines;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    try {
      lines.push_back({from_json(Json::parse(text.substr(begin, end - begin))), end + 1});
    } catch (const std::exception& e) {
      throw ConfigError(path.string() + ':' + std::to_string(lines.size() + 1),
                        std::string("not a line of metrics: ") + e.what(), "move the file away");
    }
  }
  return lines;
}

}  // namespace

std::optional<double> StepMetrics::value(std::string_view name) const {
  for (const auto& [key, value] : more)
    if (key == name) return value;
  return std::nullopt;
}

std::string to_json(const StepMetrics& m) {
  std::string s = "{\"step\":" + std::to_string(m.step) + ",\"loss\":" + (m.loss ? number(*m.loss) : "null") +
                  ",\"tokens\":" + std::to_string(m.tokens);
  for (const auto& [name, value] : fixed_values(m)) s += std::string(",\"") + name + "\":" + number(*value);
  for (const auto& [name, value] : m.more) s += ',' + Json(name).dump() + ':' + number(value);
  return s + '}';
}

MetricsWriter::MetricsWriter(const std::filesystem::path& path, int64_t last_step)
    : place_(path.string()), file_(nullptr, std::fclose), step_(last_step) {
  if (std::filesystem::exists(path)) {
    size_t keep = 0;
    if (last_step > 0)
      for (const Line& line : read_lines(path))
        if (line.metrics.step <= last_step) keep = line.end;
    std::filesystem::resize_file(path, keep);
  }
  file_.reset(std::fopen(path.c_str(), "a"));
  if (!file_) throw std::runtime_error("[" + place_ + "] cannot write: " + std::strerror(errno));
}

void MetricsWriter::write(const StepMetrics& m) {
  MIMO_CHECK(m.step > step_, "metrics of step " + std::to_string(m.step) + " after " + std::to_string(step_));
  step_ = m.step;
  const std::string line = to_json(m) + '\n';
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() || std::fflush(file_.get()) != 0)
    throw std::runtime_error("[" + place_ + "] cannot write: " + std::strerror(errno));
}

std::vector<StepMetrics> read_metrics(const std::filesystem::path& path) {
  std::vector<StepMetrics> all;
  for (Line& line : read_lines(path)) all.push_back(std::move(line.metrics));
  return all;
}

void write_summary(const std::filesystem::path& path, const Json& summary) {
  write_text(path, summary.dump(2) + '\n');
}

}  // namespace mimo
