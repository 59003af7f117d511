// Evaluation tasks: what a model's reading of the held-out samples is worth. Each is one file in data/tasks/ that
// registers itself; a dataset names the one it is made for, and eval.task another.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/registry.h"

namespace mimo {

// What a model says of one sample at the places that count, each from the true text before it.
struct Reading {
  std::vector<int32_t> labels, predicted;  // the tokens that are there, the likeliest ones
  double loss = 0;                         // sum of -ln p(label)
  bool right() const { return !labels.empty() && labels == predicted; }
};

// A sample and its score.
struct Judged {
  double score = 0;
  int64_t counted = 0;       // labels
  int kind = 0, length = 0;  // of the sample: see data/dataset.h
};

struct EvaluationTask {
  std::string name;   // in configurations, metrics and summaries: letters and _
  std::string title;  // for people
  std::string help;
  std::function<double(const Reading&)> score;  // of one sample, on the one rank that read it
  // The figure of samples that follow one another; none where there is nothing to say. NaN and infinities, of a
  // model that has diverged, count as none.
  std::function<std::optional<double>(std::span<const Judged>)> figure;
  bool by_group = true;  // samples of one kind, or of one length, have a figure of their own
};

std::optional<double> mean_score(std::span<const Judged>);

// Throws ConfigError at `place` where there is none of that name.
const EvaluationTask& task_named(const std::string& name, const std::string& place);

}  // namespace mimo
