#include "parallel/step_sums.h"

#include <numeric>

#include "kernels/reduce.h"

namespace mimo {

void add_gradients(StepSums& step, int module, std::span<Parameter* const> parameters, int world_rank) {
  if (static_cast<int>(step.squared_norm.size()) <= module) step.squared_norm.resize(module + 1, 0);
  for (DType dtype : {DType::f32, DType::f64}) {
    std::vector<int64_t> pointers, counts;
    for (const Parameter* p : parameters) {
      if (!p->has_gradient() || p->grad.dtype() != dtype) continue;
      if (!is_first(world_rank, p->copies)) continue;
      pointers.push_back(reinterpret_cast<int64_t>(p->grad.raw()));
      counts.push_back(p->grad.numel());
    }
    if (pointers.empty()) continue;
    const Tensor at = Tensor::of(pointers), n = Tensor::of(counts), result = Tensor::empty({2}, DType::f64);
    dispatch(dtype, [&]<class T>() {
      launch(SumSquares<T>{.tensors = static_cast<int>(counts.size()),
                           .total = std::accumulate(counts.begin(), counts.end(), int64_t{0}),
                           .x = static_cast<const T* const*>(at.raw()),
                           .n = n.data<int64_t>(),
                           .result = result.data<double>()});
    });
    const std::vector<double> here = result.to_vector<double>();
    step.squared_norm[module] += here[0];
    step.non_finite += here[1];
  }
}

void reduce_step(StepSums& step, Communicator& world) {
  std::vector<double> v = step.sums.values();
  const auto sums = static_cast<std::ptrdiff_t>(v.size());
  v.insert(v.end(), {step.non_finite, step.stop ? 1.0 : 0.0});
  v.insert(v.end(), step.squared_norm.begin(), step.squared_norm.end());
  world.all_reduce({v.data(), static_cast<int64_t>(v.size()), DType::f64}, ReduceOp::sum, current_stream())
      .wait();
  step.sums.set({v.begin(), v.begin() + sums});
  step.non_finite = v[static_cast<size_t>(sums)];
  step.stop = v[static_cast<size_t>(sums) + 1] > 0;
  std::copy(v.begin() + sums + 2, v.end(), step.squared_norm.begin());
}

}  // namespace mimo
