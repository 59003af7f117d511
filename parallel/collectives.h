// The collectives of tensor parallelism, with their gradients. `group` null or of one rank: the identity. All
// ranks of the group call them with the same shapes, forward and backward in the same order.
// Everything outside a split region is the same on all ranks of the group, values and gradients alike.
#pragma once
#include "parallel/communicator.h"
#include "tensor/autograd.h"

namespace mimo {

// Enters a split region: y = x; dx = sum of the ranks' dy.
Tensor copy_to_group(const Tensor& x, Communicator* group);

// Leaves it: y = sum of the ranks' x; dx = dy.
Tensor reduce_from_group(const Tensor& x, Communicator* group);

}  // namespace mimo
