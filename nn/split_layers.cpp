#include "nn/split_layers.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace mimo {

std::vector<int> split_layers(const std::vector<double>& cost, int stages) {
  const int n = static_cast<int>(cost.size());
  if (n < stages)
    throw std::invalid_argument(std::to_string(stages) + " stages for " + std::to_string(n) + " layers");
  if (stages == 1) return {0, n};
  std::vector<double> sum(n + 1, 0);
  for (int i = 0; i < n; ++i) sum[i + 1] = sum[i] + cost[i];
  // best[s][i]: the least possible dearest stage when the first i layers fill s stages.
  const double inf = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> best(stages + 1, std::vector<double>(n + 1, inf));
  std::vector<std::vector<int>> from(stages + 1, std::vector<int>(n + 1, 0));
  best[0][0] = 0;
  for (int s = 1; s <= stages; ++s)
    for (int i = s; i <= n; ++i)
      for (int j = s - 1; j < i; ++j) {
        const double dearest = std::max(best[s - 1][j], sum[i] - sum[j]);
        if (dearest < best[s][i]) best[s][i] = dearest, from[s][i] = j;
      }
  std::vector<int> begin(stages + 1, n);
  for (int s = stages, i = n; s > 0; --s) begin[s - 1] = i = from[s][i];
  return begin;
}

}  // namespace mimo
