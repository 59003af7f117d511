// How a grid cuts a parameter and whose gradients of it add: all that a layer says of where its parameters
// lie. What follows from it and the grid (shard, copies, groups) follows here.
#pragma once
#include <vector>

#include "parallel/grid.h"
#include "tensor/parameter.h"

namespace mimo {

// Examples, with the axes named short:
//   column-parallel weight                    {.axis = 0}
//   norm before it                            {}
//   the same under sequence parallelism,
//   or a norm of heads that tp cuts           {.adds = {tp, cp, dp}}
//   keys and values of two heads, tp of 8     {.axis = 0, .replicas = 4}
//   experts [e, f, d], cut along f too        {.axis = 0, .over = {ep}, .adds = {edp},
//                                              .then = {{.axis = 1, .over = {etp}}}}
struct Cut {
  int axis = -1;                        // of the tensor; -1: whole on every rank of the stage
  std::vector<int64_t> blocks = {};     // that the axis is made of, each cut by itself; empty: it is one
  bool uneven = false;                  // parts may differ in size (vocabulary)
  std::vector<Axis> over = {Axis::tp};  // the ranks that hold parts
  int replicas = 1;                     // so many neighbours of them hold the same part; their gradients add
  // The axes whose ranks see different tokens, or use it for different heads: their gradients add. Those of
  // ranks along other axes are the same.
  std::vector<Axis> adds = {Axis::cp, Axis::dp};
  // The last stage holds what the first one does, and their gradients add (embedding and head). Where one
  // rank has both stages they share the parameter.
  bool tied = false;
  std::vector<Cut> then = {};  // cuts along later axes of the tensor: `axis` to `replicas` of each
};
inline const Cut kReplicated{};
inline const Cut kRows{.axis = 0};
inline const Cut kColumns{.axis = 1};

// Sets shard, copies and partial of a parameter of p.shape on one rank of the grid. `copies` are all ranks
// that hold the same part, ascending; `partial` the ranks of the stage whose gradients add, then, where it is
// tied, the two ends. Throws where parts do not divide, axes are of different views or both cut and add, and
// for a tied parameter between the ends.
void place(Parameter& p, const Cut&, const Grid&, const Coord&);

}  // namespace mimo
