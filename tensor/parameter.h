// One description of a parameter serves initialisation, reductions, the optimizer, checkpoints and
// conversion.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include "kernels/philox.h"
#include "tensor/shard.h"
#include "tensor/tensor.h"

namespace mimo {

struct Initializer {
  Distribution distribution = Distribution::constant;
  double a = 0, b = 0;
};

struct Parameter {
  std::string name;         // canonical: language.layers.3.mixer.in_proj.weight
  Dims shape;               // global
  Shard shard;              // what of it lies here, in storage order
  Tensor value;             // local, the compute dtype or fp32
  Tensor grad;              // local, acc_of(dtype); sums until the step's one division
  std::vector<int> copies;  // world ranks with these very elements; the first counts the norm and writes
  std::vector<std::vector<int>> partial;  // groups of world ranks whose gradients add
  Initializer init;
  bool decay = true, trainable = true;

  bool has_gradient() const { return trainable && grad.defined() && grad.numel() > 0; }
};

// Of ranks that hold the same elements, the first speaks for all; of an empty list every rank does.
bool is_first(int rank, const std::vector<int>& copies);

// A rank's part of a global tensor under a name of its own. All ranks together hold every element; of several
// holders of the same shard one has `writes`.
struct ShardedTensor {
  std::string name;  // language.layers.3.mixer.in_proj.weight/value
  Dims shape;        // global, at least one axis
  Shard shard;
  Tensor tensor;  // local, contiguous: the shard's elements in storage order
  bool writes = true;
};

// The value of a parameter: NAME/value.
ShardedTensor sharded_value(const Parameter&, int rank);

// Allocates p.value of local_shape(p.shard) and fills it from (seed, name, global index), so that an element
// is the same in every layout and, but for rounding, in every dtype; allocates p.grad (zeros), undefined
// unless trainable.
void materialize(Parameter& p, DType dtype, uint64_t seed);

inline bool any_trainable(std::initializer_list<const Parameter*> parameters) {
  return std::any_of(parameters.begin(), parameters.end(), [](const Parameter* p) { return p->trainable; });
}

// What a kernel adds the gradient of p, stored as T, to; null where p is frozen.
template <class T>
acc_t<T>* grad_of(const Parameter& p) {
  return p.trainable ? p.grad.data<acc_t<T>>() : nullptr;
}

}  // namespace mimo
