#include "tensor/parameter.h"

#include "tensor/random.h"

namespace mimo {

void materialize(Parameter& p, DType dtype, uint64_t seed) {
  p.value = Tensor::empty(local_shape(p.shard), dtype);
  const uint64_t name = hash_name(p.name);
  dispatch(dtype, [&]<class T>() {
    for_each_run(p.shard, p.shape, [&](int64_t local, int64_t global, int64_t count) {
      launch(RandomFill<T>{.seed = seed,
                           .name = name,
                           .first = global,
                           .n = count,
                           .distribution = p.init.distribution,
                           .a = p.init.a,
                           .b = p.init.b,
                           .out = p.value.data<T>() + local});
    });
  });
  p.grad = p.trainable ? Tensor::zeros(p.value.shape(), acc_of(dtype)) : Tensor();
}

bool is_first(int rank, const std::vector<int>& copies) { return copies.empty() || copies.front() == rank; }

ShardedTensor sharded_value(const Parameter& p, int rank) {
  return {p.name + "/value", p.shape, p.shard, p.value, is_first(rank, p.copies)};
}

}  // namespace mimo
