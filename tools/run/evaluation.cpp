#include "tools/run/evaluation.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <map>

#include "tools/run/progress.h"

namespace mimo {
namespace {

std::optional<double> finite(std::optional<double> x) { return x && std::isfinite(*x) ? x : std::nullopt; }

// Of the samples that have a key, group by group in the order of keys.
template <class Key>
std::vector<Evaluation::Group> grouped(const Evaluation& e,
                                       const std::function<std::optional<Key>(const Judged&)>& key,
                                       const std::function<std::string(const Key&)>& name) {
  std::vector<Evaluation::Group> out;
  if (!e.task->by_group) return out;
  std::map<Key, std::vector<Judged>> groups;
  for (const Judged& j : e.judged)
    if (const auto k = key(j)) groups[*k].push_back(j);
  for (const auto& [k, samples] : groups)
    if (const auto figure = finite(e.task->figure(samples)))
      out.push_back({name(k), static_cast<int64_t>(samples.size()), *figure});
  return out;
}

}  // namespace

std::optional<double> Evaluation::loss() const {
  if (counted == 0) return std::nullopt;
  return loss_sum / counted;
}

std::optional<double> Evaluation::figure() const {
  if (headline == 0) return std::nullopt;
  return finite(task->figure(std::span(judged).first(static_cast<size_t>(headline))));
}

std::string Evaluation::text() const {
  if (counted == 0) return "nothing to read";
  std::string s = "loss " + figure_text(loss());
  if (headline > 0) s += fmt::format(", {} {} of {}", task->title, figure_text(figure()), headline);
  return s;
}

std::vector<Evaluation::Group> Evaluation::by_kind() const {
  return grouped<std::string>(
      *this, [&](const Judged& j) { return std::optional(kinds[static_cast<size_t>(j.kind)]); },
      [](const std::string& kind) { return kind; });
}

std::vector<Evaluation::Group> Evaluation::by_length() const {
  return grouped<int>(
      *this, [](const Judged& j) { return j.kind == 0 ? std::optional(j.length) : std::nullopt; },
      [](const int& length) { return std::to_string(length); });
}

void Evaluation::append(const Evaluation& next) {
  const auto join = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  task = next.task, kinds = next.kinds;
  headline += next.headline;
  loss_sum += next.loss_sum, counted += next.counted;
  join(judged, next.judged);
  join(right, next.right);
  join(readings, next.readings);
}

}  // namespace mimo
