// What part of a global tensor lies on a rank: an ordered list of disjoint boxes in global coordinates, laid
// end to end (each row-major) in local storage. Shards are closed under cutting a flat range of that storage,
// so slices of an optimizer's state are Shards too.
#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "tensor/tensor.h"

namespace mimo {

struct Box {
  Dims start, count;
  bool operator==(const Box&) const = default;
};
using Shard = std::vector<Box>;

std::optional<Box> intersect(const Box&, const Box&);  // of one tensor; nullopt: no element in common

Shard whole(const Dims& shape);
int64_t numel(const Shard&);

// The shape of local storage: where the elements are a full grid (all that split returns), its size along
// each axis, else (slices that cut made) one flat axis.
Dims local_shape(const Shard&);

// The elements [flat_begin, flat_end) of the shard's storage, as a Shard without empty boxes.
Shard cut(const Shard&, int64_t flat_begin, int64_t flat_end);

// Part r of n along an axis of blocks: `blocks` are the sizes along the axis that are each cut n ways
// (Mamba's z|x|B|C|dt, fused q|k|v); each block must divide by n unless `uneven`, where part r gets [r b / n,
// (r + 1) b / n). Storage is the row-major tensor of the parts side by side. In the fewest boxes: one for one
// block or n = 1, one a block along axis 0, else one for every block and index of the axes before.
Shard split(const Dims& shape, int axis, const std::vector<int64_t>& blocks, int r, int n,
            bool uneven = false);

// A run of elements that are consecutive in both storages.
struct Run {
  int64_t a, b, count;  // flat offsets in the storage of either shard
  bool operator==(const Run&) const = default;
};
// All common elements of two shards of the same global tensor, as maximal runs, ascending in a.
std::vector<Run> overlap(const Shard& a, const Shard& b);

// Consecutive runs of the shard's storage that are consecutive in the global row-major tensor too, maximal
// and in storage order: f(local offset, global flat index, count).
void for_each_run(const Shard&, const Dims& shape, const std::function<void(int64_t, int64_t, int64_t)>& f);

}  // namespace mimo
