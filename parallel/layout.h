// All modules' grids, and how they lie over the world's ranks.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "parallel/grid.h"

namespace mimo {

enum class Placement { disjoint, colocated };

struct Layout {
  std::vector<std::pair<std::string, Grid>> modules;  // in file order; the language model is one of them
  int world = 1;

  const Grid& grid(std::string_view module) const;
  int index(std::string_view module) const;  // -1: no such module
  Placement placement() const;
};

// Parses one "tpN,cpN,ppN,dpN@OFFSET" per module (any order and subset, missing sizes are 1, "tp" may be
// written TP), fills in offsets over the free ranks (explicit ones first) and the one missing dp, and checks
// everything that needs no model: positive sizes, tp a power of two, cp = 1 so far, every rank covered, no
// gap, modules all disjoint or all on the very same ranks (partial overlap and a mixture are refused by
// name). The missing dp takes the ranks that the others leave, or those of the module at the same offset. An
// empty list is the default: as many ranks as modules, a rank for each; otherwise all modules dpN on all
// ranks. Throws ConfigError("layout.MODULE: ...").
Layout parse_layout(const std::vector<std::pair<std::string, std::string>>& lines,
                    const std::vector<std::string>& modules, int world);

std::string to_string(const Layout&);

}  // namespace mimo
