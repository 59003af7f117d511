// The readings of held-out samples that follow one another, and their figures.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/task.h"

namespace mimo {

struct Evaluation {
  const EvaluationTask* task = nullptr;
  std::vector<std::string> kinds;  // of the dataset
  int64_t headline = 0;            // so many of the first samples make the figure
  double loss_sum = 0, counted = 0;
  std::vector<Judged> judged;  // by sample
  std::vector<bool> right;     // by sample: all labels were the likeliest tokens
  // Likeliest tokens at counted places, by sample; on ranks that hold the loss, others empty.
  std::vector<std::vector<int32_t>> readings;

  int64_t samples() const { return static_cast<int64_t>(judged.size()); }
  // Of none there is none.
  std::optional<double> loss() const;    // mean over counted tokens
  std::optional<double> figure() const;  // the task's
  std::string text() const;              // "loss 0.0332, exact match 0.9708 of 1200": what there is of it

  struct Group {
    std::string name;
    int64_t samples = 0;
    double figure = 0;
  };
  std::vector<Group> by_kind() const;    // kinds by name
  std::vector<Group> by_length() const;  // of the first kind
  void append(const Evaluation& next);   // of the samples that follow
};

}  // namespace mimo
