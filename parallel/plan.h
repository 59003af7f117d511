// The schedule of a step as data, in one total order (design: any restriction of it to a rank cannot
// deadlock).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/layout.h"

namespace mimo {

// Module `src`'s last stage feeds module `dst`'s first stage. Between the stages of a module edges are
// implied.
struct ModuleEdge {
  int src, dst;
  bool operator==(const ModuleEdge&) const = default;
};
using ModuleEdges = std::vector<ModuleEdge>;

// Every stage edge of the step, implied ones first (by module, stage), then the module edges in their order.
// Action.edge indexes this.
struct StageEdge {
  int src_module, src_stage, dst_module, dst_stage;
  bool operator==(const StageEdge&) const = default;
};
std::vector<StageEdge> stage_edges(const Layout&, const ModuleEdges&);

struct Action {
  enum class Kind : uint8_t { forward, backward, send_forward, send_backward, reduce, step_reduce, update };
  Kind kind = Kind::forward;
  int module = -1, stage = -1, lane = -1;  // forward, backward, reduce (lane -1: all lanes)
  int wave = -1;
  int edge = -1,
      dst_lane = -1;  // transfers: stage edge, from `lane` to `dst_lane` (as in the forward direction)
  bool operator==(const Action&) const = default;
};
std::string to_string(const Action&, const Layout&);

struct Plan {
  std::vector<Action> order;  // the total order T
  int waves = 0;
};

// The ranks that must meet in an action, sorted.
Ranks participants(const Action&, const Layout&, const std::vector<StageEdge>&);
Plan restrict_to(const Plan&, int rank, const Layout&, const std::vector<StageEdge>&);

}  // namespace mimo
