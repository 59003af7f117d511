// How a lane's rows lie over the ranks of its block, and which rows go from which rank to which: pure
// functions of sizes, the same on every rank.
//
//   one part              sliced in 2                 zig_zag over cp 2
//   r0 |aaaaaaaa|         r0 |aaaa    |               r0 |aa    dd|   = aadd
//   r1 |aaaaaaaa|         r1 |    bbbb|               r1 |  bbcc  |   = bbcc
#pragma once
#include <vector>

#include "parallel/route.h"

namespace mimo {

// Rows [begin, begin + rows) of a lane's samples laid end to end.
struct RowRange {
  int64_t begin, rows;
  bool operator==(const RowRange&) const = default;
};

// How a lane's rows are spread over parts of it. [part]: the rows that it has, in the order in which they lie
// there. Every row of the lane is in one part. The ranks of a block have the parts in order, as many
// neighbours each the same one: n ranks share P parts such that rank i has part i P / n.
using Spread = std::vector<std::vector<RowRange>>;

// All on one part: every rank of the block has them (tensor parallelism).
Spread one_part(int64_t rows);
// Over cp ranks in 2 cp chunks of equal size, rank r having chunks r and 2 cp - 1 - r (so that all have the
// same causal work), and what each has over sp ranks in slices of equal size. Rows are counted as rounded up
// to a multiple of 2 cp sp (sp, where cp is 1): the last ones that this adds are in no part, and at the end
// of those parts that are shorter than others.
Spread zig_zag(int64_t rows, int cp, int sp = 1);
// Over sp ranks in slices (sequence parallelism).
inline Spread sliced(int64_t rows, int sp) { return zig_zag(rows, 1, sp); }

int64_t rows_of(const std::vector<RowRange>& part);
// The part of rank i of a block of n.
int part_of(int i, int n, const Spread&);
// Throws unless every one of the rows is in one part, and n ranks can have them.
void check_spread(const Spread&, int64_t rows, int n);

// `rows` consecutive rows, from src_begin of what rank src has to dst_begin of what rank dst has.
struct Piece {
  int src, dst;  // world ranks
  int64_t src_begin, dst_begin, rows;
  bool operator==(const Piece&) const = default;
};

// The pieces of a route from block `from`, whose lane's rows lie so, to block `to`: each rank of `to` is
// given every row of its part once, by itself where it has it (then nothing travels), else by one that has
// it, rank j of `to` by the (j mod so many)th of these. Runs are maximal; sorted by place in `to`, then in
// its part.
std::vector<Piece> pieces(const Route&, const Ranks& from, const Spread& src, const Ranks& to,
                          const Spread& dst);

// The same route for the gradient, which goes the other way.
inline Route reversed(const Route& r) { return {r.dst_lane, r.src_lane, r.dst_begin, r.src_begin, r.rows}; }

}  // namespace mimo
