// A plan as people read it: ranks as rows, time from left to right.
#pragma once
#include <string>

#include "parallel/simulate.h"

namespace mimo {

// How a plan's times are printed: multiplied by scale, then the name.
struct TimeUnit {
  double scale = 1;
  std::string name;
};

// One line for every node of a group of ranks with the same work: F3-- and B3==== are the forward and the
// backward of wave 3, dots are idle time. At most `width` columns of time.
std::string draw_text(const Plan&, const PlanGraph&, const Timeline&, const TimeUnit& = {}, int width = 150);

// An SVG document: one row for every group of ranks with the same work, a colour for every module, forward
// light and backward dark with the number of the wave, reductions and the update grey; legend and axis.
std::string draw_svg(const Plan&, const PlanGraph&, const Timeline&, const TimeUnit& = {});

}  // namespace mimo
