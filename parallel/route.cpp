#include "parallel/route.h"

#include <algorithm>
#include <map>

#include "tensor/error.h"

namespace mimo {

std::vector<Wave> deal(int64_t n, int waves, const Layout& layout) {
  MIMO_CHECK(n >= 0 && waves >= 1, "a step has at least one wave and no negative number of samples");
  std::vector<Wave> out(waves);
  for (int w = 0; w < waves; ++w) {
    Wave& wave = out[w];
    const int64_t begin = w * n / waves, m = (w + 1) * n / waves - begin;
    for (int64_t i = 0; i < m; ++i) wave.samples.push_back(begin + i);
    for (const auto& [name, grid] : layout.modules) {
      std::vector<int>& lane = wave.lane.emplace_back(m);
      // p is in [i m / D, (i + 1) m / D) for the largest i with i m < (p + 1) D.
      for (int64_t p = 0; p < m; ++p) lane[p] = static_cast<int>(((p + 1) * grid.dp - 1) / m);
    }
  }
  return out;
}

std::vector<int> owned(const Wave& wave, int module, int lane) {
  std::vector<int> out;
  const std::vector<int>& owner = wave.lane.at(module);
  for (size_t p = 0; p < owner.size(); ++p)
    if (owner[p] == lane) out.push_back(static_cast<int>(p));
  return out;
}

std::vector<Route> route(const Wave& wave, int src_module, int dst_module,
                         const std::function<int64_t(int64_t)>& rows) {
  const std::vector<int>&src = wave.lane.at(src_module), &dst = wave.lane.at(dst_module);
  std::map<int, int64_t> src_rows, dst_rows;              // laid so far, by lane
  std::map<std::pair<int, int>, std::vector<Route>> out;  // by pair of lanes
  for (size_t p = 0; p < wave.samples.size(); ++p) {
    const int64_t n = rows(wave.samples[p]);
    if (n == 0) continue;
    const Route next{src[p], dst[p], src_rows[src[p]], dst_rows[dst[p]], n};
    src_rows[src[p]] += n;
    dst_rows[dst[p]] += n;
    std::vector<Route>& runs = out[{src[p], dst[p]}];
    if (!runs.empty() && runs.back().src_begin + runs.back().rows == next.src_begin &&
        runs.back().dst_begin + runs.back().rows == next.dst_begin)
      runs.back().rows += n;
    else
      runs.push_back(next);
  }
  std::vector<Route> all;
  for (const auto& [pair, runs] : out) all.insert(all.end(), runs.begin(), runs.end());
  return all;
}

std::vector<std::pair<int, int>> lane_pairs(int src_lanes, int dst_lanes) {
  std::vector<std::pair<int, int>> out;
  for (int64_t i = 0; i < src_lanes; ++i)
    for (int64_t j = 0; j < dst_lanes; ++j)
      if (i * dst_lanes < (j + 1) * src_lanes && j * src_lanes < (i + 1) * dst_lanes)
        out.emplace_back(static_cast<int>(i), static_cast<int>(j));
  return out;
}

}  // namespace mimo
