#include "parallel/grid.h"

#include <algorithm>
#include <numeric>

#include "tensor/error.h"
#include "tensor/text.h"

namespace mimo {
namespace {

// Axis by axis, fastest first.
std::array<int, 4> sizes_of(const Grid& g) { return {g.tp, g.cp, g.dp, g.pp}; }
std::array<int, 4> as_array(const Coord& c) { return {c.tp, c.cp, c.dp, c.pp}; }
Coord as_coord(const std::array<int, 4>& c) { return {c[0], c[1], c[2], c[3]}; }

using Chosen = std::array<bool, 4>;

Chosen chosen(const std::vector<Axis>& axes) {
  Chosen is{};
  for (Axis a : axes) is[static_cast<int>(a)] = true;
  return is;
}

// The ranks with every coordinate of the chosen axes and, on the others, those of `at`: in ascending order.
Ranks group_at(const Grid& g, const Coord& at, const Chosen& is) {
  Ranks out;
  const auto fixed = as_array(at), sizes = sizes_of(g);
  std::array<int, 4> from, to;
  for (int a = 0; a < 4; ++a) from[a] = is[a] ? 0 : fixed[a], to[a] = is[a] ? sizes[a] : fixed[a] + 1;
  for (int pp = from[3]; pp < to[3]; ++pp)
    for (int dp = from[2]; dp < to[2]; ++dp)
      for (int cp = from[1]; cp < to[1]; ++cp)
        for (int tp = from[0]; tp < to[0]; ++tp) out.push_back(g.rank({tp, cp, dp, pp}));
  return out;
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
  MIMO_CHECK(contains(rank), "rank " + std::to_string(rank) + " is not in " + to_string(*this));
  std::array<int, 4> c{};
  int rest = rank - offset;
  const auto n = sizes_of(*this);
  for (int a = 0; a < 4; ++a) {
    c[a] = rest % n[a];
    rest /= n[a];
  }
  return as_coord(c);
}

std::vector<Ranks> Grid::groups(const std::vector<Axis>& axes) const {
  const Chosen is = chosen(axes);
  std::vector<Ranks> out;
  for (int r = offset; r < end(); ++r) {
    // Every group is met at its first rank, the one at 0 on the chosen axes.
    const auto c = as_array(coord(r));
    bool first = true;
    for (int a = 0; a < 4; ++a) first = first && !(is[a] && c[a] != 0);
    if (first) out.push_back(group_at(*this, coord(r), is));
  }
  return out;
}

Ranks Grid::group(int rank, const std::vector<Axis>& axes) const {
  return group_at(*this, coord(rank), chosen(axes));
}

Ranks Grid::block(int lane, int stage) const {
  return group(rank({.dp = lane, .pp = stage}), {Axis::tp, Axis::cp});
}

std::string to_string(const Grid& g) {
  std::string s = "tp" + std::to_string(g.tp);
  if (g.cp != 1) s += ",cp" + std::to_string(g.cp);
  if (g.pp != 1) s += ",pp" + std::to_string(g.pp);
  return s + ",dp" + std::to_string(g.dp) + "@" + std::to_string(g.offset);
}

}  // namespace mimo
