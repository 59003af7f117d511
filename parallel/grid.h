// A module's ranks as a 4-D array: axes from fastest tp, cp, dp, pp; rank = offset + tp_i + tp (cp_i + cp
// (dp_i + dp pp_i)).
//
// Experts see the same ranks along other axes: those of a pipeline rank, tp x cp x dp of them, are etp x ep x
// edp, etp fastest. So rank = offset + etp_i + etp (ep_i + ep (edp_i + edp pp_i)) as well, and pp groups are
// the same in both views. (Megatron's expert grid.)
#pragma once
#include <string>
#include <vector>

namespace mimo {

using Ranks = std::vector<int>;  // world ranks
Ranks consecutive(int begin, int end);
std::string to_string(const Ranks&);  // "rank 3", "ranks 0-2,5"

enum class Axis { tp, cp, dp, pp, etp, ep, edp };

struct Coord {
  int tp = 0, cp = 0, dp = 0, pp = 0;
  bool operator==(const Coord&) const = default;
};

struct Grid {
  int offset = 0;
  int tp = 1, cp = 1, dp = 1, pp = 1;
  int etp = 1, ep = 1;
  int vp = 1;  // stages that each rank holds

  int size() const { return tp * cp * dp * pp; }
  int end() const { return offset + size(); }
  bool contains(int rank) const { return rank >= offset && rank < end(); }
  int rank(const Coord&) const;
  Coord coord(int rank) const;  // throws when the grid does not contain rank

  int edp() const;  // throws where etp x ep does not divide tp x cp x dp
  int size(Axis) const;
  int coord(int rank, Axis) const;
  // The group over the given axes of one view that holds rank, in ascending grid order. Throws for axes that
  // no view has together.
  Ranks group(int rank, const std::vector<Axis>& axes) const;

  // The stages of the module, one after the other along pp and around again: a rank with pp_i holds stages
  // pp_i, pp_i + pp, ...
  int stages() const { return pp * vp; }
  std::vector<int> stages_of(int rank) const;  // ascending
  // The ranks that compute one stage of one lane together (tp x cp), tp fastest.
  Ranks block(int lane, int stage) const;
  bool operator==(const Grid&) const = default;
};

std::string to_string(const Grid&);  // "tp2,pp2,dp1@4", the form that parse_layout reads

}  // namespace mimo
