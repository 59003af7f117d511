// Who owns which sample, and which lane sends which rows to which: pure functions of sizes, the same on every
// rank.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include "parallel/batch.h"
#include "parallel/layout.h"

namespace mimo {

struct Wave {
  std::vector<int64_t> samples;        // indices into the step's sizes, in stream order
  std::vector<std::vector<int>> lane;  // [module][position in samples]: the lane that owns it
};

// Cuts a step of n samples in `waves` waves (wave w gets [w n / W, (w + 1) n / W)) and gives every sample of
// a wave of m samples to one lane of every module: lane i of D gets [i m / D, (i + 1) m / D).
std::vector<Wave> deal(int64_t n, int waves, const Layout&);

// The positions (in wave.samples) that a lane of a module owns, in order.
std::vector<int> owned(const Wave&, int module, int lane);

// `rows` consecutive rows, from src_begin of the source lane's output to dst_begin of the destination lane's
// input. Sorted by source lane, destination lane, source row.
struct Route {
  int src_lane, dst_lane;
  int64_t src_begin, dst_begin, rows;
  bool operator==(const Route&) const = default;
};

// The rows each lane of module `src` sends each lane of `dst`, when sample i (an index into the step) yields
// rows(i) rows and both sides lay their samples end to end. Runs are maximal; empty ones are left out.
std::vector<Route> route(const Wave&, int src_module, int dst_module,
                         const std::function<int64_t(int64_t)>& rows);

// Pairs of lanes that default deals of any size can connect: their intervals [i/D, (i+1)/D) intersect.
std::vector<std::pair<int, int>> lane_pairs(int src_lanes, int dst_lanes);

}  // namespace mimo
