#include "parallel/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mimo {

double learning_rate(const Schedule& s, int64_t step) {
  if (step < s.warmup) return s.lr * static_cast<double>(step + 1) / static_cast<double>(s.warmup);
  if (s.kind == Schedule::Kind::constant || s.steps - 1 <= s.warmup) return s.lr;
  const double x =
      std::min(1.0, static_cast<double>(step - s.warmup) / static_cast<double>(s.steps - 1 - s.warmup));
  const double left = s.kind == Schedule::Kind::linear ? 1 - x : 0.5 * (1 + std::cos(std::numbers::pi * x));
  return s.min_lr + left * (s.lr - s.min_lr);
}

}  // namespace mimo
