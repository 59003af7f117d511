#include "parallel/grid.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "tensor/error.h"
#include "tensor/text.h"

namespace mimo {
namespace {

// Axes whose sizes multiply to that of the grid, fastest first.
using View = std::array<Axis, 4>;
constexpr View kDense{Axis::tp, Axis::cp, Axis::dp, Axis::pp};
constexpr View kExperts{Axis::etp, Axis::ep, Axis::edp, Axis::pp};

bool contains(const View& view, Axis a) { return std::find(view.begin(), view.end(), a) != view.end(); }

const View& view_of(const Grid& g, const std::vector<Axis>& axes) {
  const auto has_all = [&](const View& view) {
    return std::all_of(axes.begin(), axes.end(), [&](Axis a) { return contains(view, a); });
  };
  if (has_all(kDense)) return kDense;
  MIMO_CHECK(has_all(kExperts), "a group over axes of different views of " + to_string(g));
  g.edp();  // that the view exists
  return kExperts;
}

// Of an axis: how far apart its neighbours are.
int stride_of(const Grid& g, const View& view, Axis axis) {
  int stride = 1;
  for (size_t i = 0; view[i] != axis; ++i) stride *= g.size(view[i]);
  return stride;
}

}  // namespace

Ranks consecutive(int begin, int end) {
  Ranks all(end - begin);
  std::iota(all.begin(), all.end(), begin);
  return all;
}

std::string to_string(const Ranks& ranks) { return (ranks.size() == 1 ? "rank " : "ranks ") + ranges(ranks); }

int Grid::rank(const Coord& c) const {
  MIMO_CHECK(
      c.tp >= 0 && c.tp < tp && c.cp >= 0 && c.cp < cp && c.dp >= 0 && c.dp < dp && c.pp >= 0 && c.pp < pp,
      "coordinate outside " + to_string(*this));
  return offset + c.tp + tp * (c.cp + cp * (c.dp + dp * c.pp));
}

Coord Grid::coord(int rank) const {
  return {coord(rank, Axis::tp), coord(rank, Axis::cp), coord(rank, Axis::dp), coord(rank, Axis::pp)};
}

int Grid::edp() const {
  const int all = tp * cp * dp;
  MIMO_CHECK(etp >= 1 && ep >= 1 && all % (etp * ep) == 0,
             "etp " + std::to_string(etp) + " x ep " + std::to_string(ep) + " does not divide the " +
                 std::to_string(all) + " ranks of a stage of " + to_string(*this));
  return all / (etp * ep);
}

int Grid::size(Axis axis) const {
  switch (axis) {
    case Axis::tp:
      return tp;
    case Axis::cp:
      return cp;
    case Axis::dp:
      return dp;
    case Axis::pp:
      return pp;
    case Axis::etp:
      return etp;
    case Axis::ep:
      return ep;
    case Axis::edp:
      return edp();
  }
  return 1;
}

int Grid::coord(int rank, Axis axis) const {
  MIMO_CHECK(contains(rank), "rank " + std::to_string(rank) + " is not in " + to_string(*this));
  return (rank - offset) / stride_of(*this, view_of(*this, {axis}), axis) % size(axis);
}

Ranks Grid::group(int rank, const std::vector<Axis>& axes) const {
  const View& view = view_of(*this, axes);
  Ranks out{rank};
  for (Axis a : view) {  // fastest first, so that what is there already goes round within the next
    if (std::find(axes.begin(), axes.end(), a) == axes.end()) continue;
    const int stride = stride_of(*this, view, a), at = coord(rank, a);
    const size_t inner = out.size();
    for (int& r : out) r -= at * stride;
    for (int k = 1; k < size(a); ++k)
      for (size_t i = 0; i < inner; ++i) out.push_back(out[i] + k * stride);
  }
  return out;
}

std::vector<int> Grid::stages_of(int rank) const {
  std::vector<int> out;
  for (int s = coord(rank, Axis::pp); s < stages(); s += pp) out.push_back(s);
  return out;
}

Ranks Grid::block(int lane, int stage) const {
  MIMO_CHECK(stage >= 0 && stage < stages(), "no stage " + std::to_string(stage) + " in " + to_string(*this));
  return group(rank({.dp = lane, .pp = stage % pp}), {Axis::tp, Axis::cp});
}

std::string to_string(const Grid& g) {
  std::string s = "tp" + std::to_string(g.tp);
  if (g.cp != 1) s += ",cp" + std::to_string(g.cp);
  if (g.pp != 1) s += ",pp" + std::to_string(g.pp);
  if (g.vp != 1) s += ",vp" + std::to_string(g.vp);
  return s + ",dp" + std::to_string(g.dp) + "@" + std::to_string(g.offset);
}

}  // namespace mimo
