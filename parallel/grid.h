// A module's ranks as a 4-D array: axes from fastest tp, cp, dp, pp; rank = offset + tp_i + tp (cp_i + cp
// (dp_i + dp pp_i)).
#pragma once
#include <array>
#include <string>
#include <vector>

namespace mimo {

using Ranks = std::vector<int>;  // world ranks
Ranks consecutive(int begin, int end);
std::string to_string(const Ranks&);  // "rank 3", "ranks 0-2,5"

enum class Axis { tp, cp, dp, pp };

struct Coord {
  int tp = 0, cp = 0, dp = 0, pp = 0;
  bool operator==(const Coord&) const = default;
};

struct Grid {
  int offset = 0;
  int tp = 1, cp = 1, dp = 1, pp = 1;

  int size() const { return tp * cp * dp * pp; }
  int end() const { return offset + size(); }
  bool contains(int rank) const { return rank >= offset && rank < end(); }
  int rank(const Coord&) const;
  Coord coord(int rank) const;  // throws when the grid does not contain rank
  // All groups over the given axes, each in ascending grid order, the groups in order of the other axes.
  std::vector<Ranks> groups(const std::vector<Axis>& axes) const;
  // The group over the given axes that holds rank.
  Ranks group(int rank, const std::vector<Axis>& axes) const;
  // The ranks that compute one stage of one lane together (tp x cp), tp fastest.
  Ranks block(int lane, int stage) const;
  bool operator==(const Grid&) const = default;
};

std::string to_string(const Grid&);  // "tp2,pp2,dp1@4", the form that parse_layout reads

}  // namespace mimo
