// Gradients are sums over lanes (and whatever else sees a part of a step): what each parameter's `partial`
// names. The one division, by the step's counted tokens, comes after. Order: partial sums, data parallel
// sums, step reduction, division, clipping, update.
#pragma once
#include <span>
#include <vector>

#include "parallel/groups.h"
#include "tensor/parameter.h"

namespace mimo {

// All groups that the gradients of these parameters are summed over.
std::vector<Group> gradient_groups(std::span<Parameter* const>);

constexpr int64_t kBucketBytes = int64_t{1} << 24;

// Sums the gradients of trainable parameters over each of their `partial` groups in turn, in rank order.
// Gradients of the same group travel together, in buckets of up to bucket_bytes. All ranks of a group pass
// the parameters that name it (in any order) and list it in the same place of `partial`.
void reduce_gradients(std::span<Parameter* const>, const Groups&, int64_t bucket_bytes = kBucketBytes);

// Where the buckets end among gradients of these many elements, taken in turn: each holds up to `most`, or
// one gradient that is larger.
std::vector<size_t> bucket_ends(std::span<const int64_t> counts, int64_t most);

}  // namespace mimo
