#include "parallel/optimizer.h"

#include "kernels/adamw.h"

namespace mimo {
namespace {

// Argument tables of a kernel, as bytes on the device.
template <class V>
Tensor table(const std::vector<V>& values) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  return Tensor::of(std::vector<uint8_t>(bytes, bytes + values.size() * sizeof(V)));
}

// The elements of a portion, where they lie.
Tensor elements(const Tensor& t, const Optimizer::Portion& p) {
  if (p.end - p.begin == t.numel()) return t;
  return t.view({t.numel()}).slice(p.begin, p.end);
}

bool has_master(const Parameter& p) { return p.value.dtype() != acc_of(p.value.dtype()); }
std::string master_name(const Parameter& p) { return p.name + "/master"; }

}  // namespace

Optimizer::Optimizer(const std::vector<Parameter*>& parameters, const AdamOptions& options,
                     const PortionOf& portion_of)
    : options_(options) {
  for (Parameter* p : parameters) {
    if (!p->trainable) continue;
    const DType acc = acc_of(p->value.dtype());
    const Portion portion = portion_of(*p);
    const Tensor value = elements(p->value, portion);
    states_.push_back({.parameter = p,
                       .portion = portion,
                       .shard = cut(p->shard, portion.begin, portion.end),
                       .master = has_master(*p) ? cast(value, acc) : value,
                       .m = Tensor::zeros(value.shape(), acc),
                       .v = Tensor::zeros(value.shape(), acc)});
  }
}

void Optimizer::update(double lr, double scale, int64_t t) {
  const AdamState now{.lr = lr,
                      .beta1 = options_.beta1,
                      .beta2 = options_.beta2,
                      .eps = options_.eps,
                      .weight_decay = options_.weight_decay,
                      .scale = scale,
                      .t = t};
  const Tensor state = table<AdamState>({now});
  for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    dispatch(dtype, [&]<class T>() {
      using A = acc_t<T>;
      std::vector<AdamTensor<T>> tensors;
      int64_t total = 0;
      for (const State& s : states_) {
        const int64_t n = s.m.numel();
        if (s.parameter->value.dtype() != dtype || n == 0) continue;
        tensors.push_back({.n = n,
                           .param = s.parameter->value.data<T>() + s.portion.begin,
                           .master = s.master.data<A>(),
                           .grad = s.parameter->grad.data<A>() + s.portion.begin,
                           .m = s.m.data<A>(),
                           .v = s.v.data<A>(),
                           .decay = s.parameter->decay ? 1.0 : 0.0});
        total += n;
      }
      if (tensors.empty()) return;
      const Tensor list = table(tensors);
      launch(AdamW<T>{.tensors = static_cast<int>(tensors.size()),
                      .total = total,
                      .tensor = static_cast<const AdamTensor<T>*>(list.raw()),
                      .state = static_cast<const AdamState*>(state.raw())});
    });
  }
}

void Optimizer::zero_gradients() {
  for (State& s : states_)
    if (s.parameter->grad.numel() > 0) fill(s.parameter->grad, 0);
}

std::vector<ShardedTensor> Optimizer::tensors(int rank) const {
  std::vector<ShardedTensor> out;
  for (const State& s : states_) {
    const Parameter& p = *s.parameter;
    const auto add = [&](const std::string& name, const Tensor& t) {
      out.push_back({name, p.shape, s.shard, t, is_first(rank, s.portion.copies)});
    };
    if (has_master(p)) add(master_name(p), s.master);
    add(p.name + "/exp_avg", s.m);
    add(p.name + "/exp_avg_sq", s.v);
  }
  return out;
}

void Optimizer::restart(const std::set<std::string>& masters) {
  for (const State& s : states_)
    if (has_master(*s.parameter) && masters.contains(master_name(*s.parameter)))
      copy_into(s.master, cast(elements(s.parameter->value, s.portion), s.master.dtype()));
}

}  // namespace mimo
