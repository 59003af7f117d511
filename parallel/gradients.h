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

constexpr int64_t kBucketBytes = int64_t{1} << 27;

// Sums the gradients of trainable parameters over each of their `partial` groups in turn, in rank order; when
// the Work is complete they are sums. Gradients of the same group travel together, in messages of up to
// `most` bytes. All ranks of a group start the same sums in the same order: they pass the parameters that
// name the group (in any order) and list it in the same place of `partial`. Sums over a second group and
// later ones start when the Work is waited for, which all ranks do in the same order too.
Work reduce_gradients(std::span<Parameter* const>, const Groups&, int64_t most = kBucketBytes);

// Where the buckets end among gradients of these many elements, taken in turn: each holds up to `most`, or
// one gradient that is larger.
std::vector<size_t> bucket_ends(std::span<const int64_t> counts, int64_t most);

}  // namespace mimo
