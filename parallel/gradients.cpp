#include "parallel/gradients.h"

#include <algorithm>
#include <deque>
#include <map>

namespace mimo {
namespace {

// Gradients on their way, side by side in one message.
class Message {
 public:
  Message(std::span<Parameter* const> list, Communicator& group) : list_(list.begin(), list.end()) {
    int64_t count = 0;
    for (const Parameter* p : list_) count += p->grad.numel();
    flat_ = list_.size() == 1 ? list_[0]->grad
                              : Tensor::empty({count}, list_[0]->grad.dtype(), list_[0]->grad.device());
    if (list_.size() > 1) for_each([](const Tensor& part, const Tensor& grad) { copy_into(part, grad); });
    sum_ = group.all_reduce(flat_, ReduceOp::sum, current_stream());
  }
  bool finish(bool block) {
    if (list_.empty()) return true;
    if (block)
      sum_.wait();
    else if (!sum_.test())
      return false;
    if (list_.size() > 1) for_each([](const Tensor& part, const Tensor& grad) { copy_into(grad, part); });
    list_.clear();
    return true;
  }

 private:
  template <class F>
  void for_each(const F& f) const {
    int64_t begin = 0;
    for (Parameter* p : list_) {
      const int64_t n = p->grad.numel();
      f(flat_.slice(begin, begin + n), p->grad.view({n}));
      begin += n;
    }
  }
  std::vector<Parameter*> list_;
  Tensor flat_;
  Work sum_;
};

// The sums of one call, place in `partial` by place.
class Reduction {
 public:
  Reduction(std::span<Parameter* const> parameters, const Groups& groups, int64_t most)
      : groups_(groups), most_(most) {
    // Group, then dtype, then name: one order of sums that all ranks share whatever parameters they hold, so
    // no two wait for each other and all fill equal messages.
    for (Parameter* p : parameters)
      for (size_t i = 0; p->has_gradient() && i < p->partial.size(); ++i)
        if (p->partial[i].size() > 1) places_[i][{p->partial[i], p->grad.dtype()}].push_back(p);
    if (!places_.empty()) start();
  }
  bool finish(bool block) {
    while (!places_.empty()) {
      if (messages_.empty()) {  // of a second place or a later one
        if (!block) return false;
        start();
      }
      for (Message& m : messages_)
        if (!m.finish(block)) return false;
      messages_.clear();
      places_.erase(places_.begin());
    }
    return true;
  }

 private:
  using Key = std::pair<Ranks, DType>;
  void start() {
    for (auto& [key, list] : places_.begin()->second) {
      const auto& [ranks, dtype] = key;
      std::sort(list.begin(), list.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
      std::vector<int64_t> counts;
      for (const Parameter* p : list) counts.push_back(p->grad.numel());
      size_t begin = 0;
      for (size_t end : bucket_ends(counts, most_ / size_of(dtype))) {
        messages_.emplace_back(std::span(list).subspan(begin, end - begin),
                               groups_.at(Purpose::gradients, ranks));
        begin = end;
      }
    }
  }

  const Groups& groups_;
  int64_t most_;
  std::map<size_t, std::map<Key, std::vector<Parameter*>>> places_;  // those left to do
  std::deque<Message> messages_;                                     // of the first of them
};

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

Work reduce_gradients(std::span<Parameter* const> parameters, const Groups& groups, int64_t most) {
  const auto reduction = std::make_shared<Reduction>(parameters, groups, most);
  return Work([reduction](bool block) { return reduction->finish(block); });
}

}  // namespace mimo
