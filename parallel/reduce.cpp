#include "parallel/reduce.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>

#include "kernels/reduce.h"

namespace mimo {
namespace {

bool sums(const Parameter& p) { return p.trainable && p.grad.defined() && p.grad.numel() > 0; }

std::vector<Ranks> groups_of(std::span<Parameter* const> parameters) {
  std::vector<Ranks> out;
  for (const Parameter* p : parameters)
    if (p->trainable) out.insert(out.end(), p->partial.begin(), p->partial.end());
  return out;
}

void reduce_bucket(std::span<Parameter* const> bucket, Communicator& group) {
  Stream& stream = current_stream();
  int64_t count = 0;
  for (const Parameter* p : bucket) count += p->grad.numel();
  if (bucket.size() == 1) {
    group.all_reduce(bucket[0]->grad, ReduceOp::sum, stream).wait();
    return;
  }
  const Tensor flat = Tensor::empty({count}, bucket[0]->grad.dtype(), bucket[0]->grad.device());
  const auto for_each = [&](auto&& f) {
    int64_t begin = 0;
    for (Parameter* p : bucket) {
      const int64_t n = p->grad.numel();
      f(flat.slice(begin, begin + n), p->grad.view({n}));
      begin += n;
    }
  };
  for_each([](const Tensor& part, const Tensor& grad) { copy_into(part, grad); });
  group.all_reduce(flat, ReduceOp::sum, stream).wait();
  for_each([](const Tensor& part, const Tensor& grad) { copy_into(grad, part); });
}

}  // namespace

Groups::Groups(World& world, std::vector<Ranks> groups) {
  // Sorted: one order that all ranks share, so that no two wait for each other.
  const int me = world.world().ranks()[world.world().rank()];
  for (const Ranks& g : std::set<Ranks>(groups.begin(), groups.end()))
    if (g.size() > 1 && std::find(g.begin(), g.end(), me) != g.end()) made_[g] = world.create(g);
}

Groups::Groups(World& world, std::span<Parameter* const> parameters) : Groups(world, groups_of(parameters)) {}

Communicator& Groups::at(const Ranks& ranks) const {
  const auto found = made_.find(ranks);
  MIMO_CHECK(found != made_.end(), "no communicator of " + to_string(ranks));
  return *found->second;
}

std::vector<size_t> bucket_ends(std::span<const int64_t> counts, int64_t most) {
  std::vector<size_t> ends;
  for (size_t end = 0; end < counts.size(); ends.push_back(end)) {
    int64_t count = counts[end++];
    while (end < counts.size() && count + counts[end] <= most) count += counts[end++];
  }
  return ends;
}

void reduce_gradients(std::span<Parameter* const> parameters, const Groups& groups, int64_t bucket_bytes) {
  // Place in `partial`, then group, then dtype, then name: one order of sums that all ranks share whatever
  // parameters they hold, so no two wait for each other and all fill equal buckets.
  using Key = std::tuple<size_t, Ranks, DType>;
  std::map<Key, std::vector<Parameter*>> order;
  for (Parameter* p : parameters)
    for (size_t i = 0; sums(*p) && i < p->partial.size(); ++i)
      if (p->partial[i].size() > 1) order[{i, p->partial[i], p->grad.dtype()}].push_back(p);
  for (auto& [key, list] : order) {
    const auto& [place, ranks, dtype] = key;
    std::sort(list.begin(), list.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
    Communicator& group = groups.at(ranks);
    std::vector<int64_t> counts;
    for (const Parameter* p : list) counts.push_back(p->grad.numel());
    size_t begin = 0;
    for (size_t end : bucket_ends(counts, bucket_bytes / size_of(dtype))) {
      reduce_bucket(std::span(list).subspan(begin, end - begin), group);
      begin = end;
    }
  }
}

void add_gradients(StepSums& step, int module, std::span<Parameter* const> parameters, int world_rank) {
  if (static_cast<int>(step.squared_norm.size()) <= module) step.squared_norm.resize(module + 1, 0);
  for (DType dtype : {DType::f32, DType::f64}) {
    std::vector<int64_t> pointers, counts;
    for (const Parameter* p : parameters) {
      if (!sums(*p) || p->grad.dtype() != dtype) continue;
      if (!p->copies.empty() && p->copies[0] != world_rank) continue;
      pointers.push_back(reinterpret_cast<int64_t>(p->grad.raw()));
      counts.push_back(p->grad.numel());
    }
    if (pointers.empty()) continue;
    const Tensor at = Tensor::of(pointers), n = Tensor::of(counts), result = Tensor::empty({2}, DType::f64);
    dispatch(dtype, [&]<class T>() {
      launch(SumSquares<T>{static_cast<int>(counts.size()),
                           std::accumulate(counts.begin(), counts.end(), int64_t{0}),
                           static_cast<const T* const*>(at.raw()), n.data<int64_t>(), result.data<double>()});
    });
    const std::vector<double> here = result.to_vector<double>();
    step.squared_norm[module] += here[0];
    step.non_finite += here[1];
  }
}

void reduce_step(StepSums& step, Communicator& world) {
  std::vector<double> v = {step.statistics.loss_sum, step.non_finite, step.stop ? 1.0 : 0.0};
  const size_t fixed = v.size();
  v.insert(v.end(), step.squared_norm.begin(), step.squared_norm.end());
  world.all_reduce({v.data(), static_cast<int64_t>(v.size()), DType::f64}, ReduceOp::sum, current_stream())
      .wait();
  step.statistics.loss_sum = v[0];
  step.non_finite = v[1];
  step.stop = v[2] > 0;
  std::copy(v.begin() + fixed, v.end(), step.squared_norm.begin());
}

}  // namespace mimo
