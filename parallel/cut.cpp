#include "parallel/cut.h"

#include <algorithm>

#include "tensor/error.h"

namespace mimo {
namespace {

using Axes = std::vector<Axis>;

bool has(const Axes& axes, Axis a) { return std::find(axes.begin(), axes.end(), a) != axes.end(); }

// All groups over these axes of these ranks together, no two of which share one.
Ranks with_groups(const Grid& grid, const Ranks& ranks, const Axes& axes) {
  Ranks out;
  for (int r : ranks) {
    const Ranks group = grid.group(r, axes);
    out.insert(out.end(), group.begin(), group.end());
  }
  std::sort(out.begin(), out.end());
  return out;
}

// What is in both, in the storage of a tensor that is cut to `a` along one axis and to `b` along a later one.
Shard both(const Shard& a, const Shard& b) {
  Shard out;
  for (const Box& p : a)
    for (const Box& q : b)
      if (const auto x = intersect(p, q)) out.push_back(*x);
  if (!out.empty()) return out;
  Dims none = local_shape(a);
  for (size_t i = 0; i < none.size(); ++i) none[i] = std::min(none[i], local_shape(b)[i]);
  return whole(none);
}

// Which part of how many a rank holds, and which ranks along c.over hold the same.
struct Part {
  int index, count;
  Ranks holders;
};
Part part_of(const Cut& c, const Grid& grid, int rank) {
  const Ranks all = grid.group(rank, c.over);
  const int size = static_cast<int>(all.size());
  MIMO_CHECK(c.replicas >= 1 && size % c.replicas == 0,
             std::to_string(c.replicas) + " replicas on " + std::to_string(size) + " ranks");
  const auto me = std::find(all.begin(), all.end(), rank);
  const int index = static_cast<int>(me - all.begin()) / c.replicas;
  const auto first = all.begin() + index * c.replicas;
  return {index, size / c.replicas, Ranks(first, first + c.replicas)};
}

}  // namespace

void place(Parameter& p, const Cut& cut, const Grid& grid, const Coord& coord) {
  const int rank = grid.rank(coord);
  std::vector<const Cut*> cuts;
  if (cut.axis >= 0) cuts.push_back(&cut);
  for (const Cut& c : cut.then) cuts.push_back(&c);

  Axes over;         // all that cut
  Ranks same{rank};  // along these, the ranks with the same part
  p.shard = whole(p.shape);
  for (size_t i = 0; i < cuts.size(); ++i) {
    const Cut& c = *cuts[i];
    MIMO_CHECK(i == 0 || c.axis > cuts[i - 1]->axis, "cuts come in the order of the tensor's axes");
    const Part part = part_of(c, grid, rank);
    if (part.count > 1) {
      const std::vector<int64_t> blocks =
          c.blocks.empty() ? std::vector<int64_t>{p.shape.at(c.axis)} : c.blocks;
      const Shard here = split(p.shape, c.axis, blocks, part.index, part.count, c.uneven);
      p.shard = i == 0 ? here : both(p.shard, here);
    }
    over.insert(over.end(), c.over.begin(), c.over.end());
    Ranks more;
    for (int r : same)
      for (int holder : part.holders) more.push_back(r + holder - rank);
    same = more;
  }

  Axes axes = over, rest;
  axes.insert(axes.end(), cut.adds.begin(), cut.adds.end());
  grid.group(rank, axes);  // throws where they are not of one view
  const bool experts = has(axes, Axis::etp) || has(axes, Axis::ep) || has(axes, Axis::edp);
  for (Axis a : experts ? Axes{Axis::etp, Axis::ep, Axis::edp} : Axes{Axis::tp, Axis::cp, Axis::dp})
    if (!has(over, a)) rest.push_back(a);
  for (Axis a : cut.adds) MIMO_CHECK(has(rest, a), "gradients add over an axis that cuts it, or over stages");
  p.copies = with_groups(grid, same, rest);
  p.partial = {with_groups(grid, same, cut.adds)};

  if (cut.tied && grid.pp > 1) {
    MIMO_CHECK(coord.pp == 0 || coord.pp == grid.pp - 1, "tied, but at neither end");
    Coord at = coord;
    at.pp = grid.pp - 1 - coord.pp;
    const int there = grid.rank(at);
    for (size_t i = p.copies.size(); i-- > 0;) p.copies.push_back(p.copies[i] + there - rank);
    std::sort(p.copies.begin(), p.copies.end());
    p.partial.push_back({std::min(rank, there), std::max(rank, there)});
  }
}

}  // namespace mimo
