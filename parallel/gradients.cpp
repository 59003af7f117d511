#include "parallel/gradients.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace mimo {
namespace {

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

std::vector<Group> gradient_groups(std::span<Parameter* const> parameters) {
  std::vector<Group> out;
  for (const Parameter* p : parameters)
    for (const Ranks& ranks : p->partial)
      if (p->trainable && ranks.size() > 1) out.push_back({Purpose::gradients, ranks});
  return out;
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
    for (size_t i = 0; p->has_gradient() && i < p->partial.size(); ++i)
      if (p->partial[i].size() > 1) order[{i, p->partial[i], p->grad.dtype()}].push_back(p);
  for (auto& [key, list] : order) {
    const auto& [place, ranks, dtype] = key;
    std::sort(list.begin(), list.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
    Communicator& group = groups.at(Purpose::gradients, ranks);
    std::vector<int64_t> counts;
    for (const Parameter* p : list) counts.push_back(p->grad.numel());
    size_t begin = 0;
    for (size_t end : bucket_ends(counts, bucket_bytes / size_of(dtype))) {
      reduce_bucket(std::span(list).subspan(begin, end - begin), group);
      begin = end;
    }
  }
}

}  // namespace mimo
