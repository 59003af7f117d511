// All modules' grids, and how they lie over the world's ranks.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "parallel/grid.h"

namespace mimo {

struct Layout {
  std::vector<std::pair<std::string, Grid>> modules;  // in file order; the language model is one of them
  int world = 1;

  const Grid& grid(std::string_view module) const;
  int index(std::string_view module) const;  // -1: no such module
};

// Parses one "tpN,cpN,ppN,dpN@OFFSET" per module (any order and subset, missing sizes are 1, "tp" may be
// written TP), fills in offsets over the free ranks (explicit ones first) and the one missing dp, and checks
// everything that needs no model: positive sizes, tp a power of two, cp, vp, ep and etp 1 so far, a module on
// every rank.
// Modules share ranks as they like: all, some or none. The missing dp takes the ranks of the module (the
// widest) at the same offset, else those that the others leave and, from its own offset on, those it shares
// with them. An empty list is the default: as many ranks as modules, a rank for each; otherwise all modules
// dpN on all ranks. Throws ConfigError("layout.MODULE: ...").
Layout parse_layout(const std::vector<std::pair<std::string, std::string>>& lines,
                    const std::vector<std::string>& modules, int world);

std::string to_string(const Layout&);

}  // namespace mimo
