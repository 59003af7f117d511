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

}  // namespace

Optimizer::Optimizer(const std::vector<Parameter*>& parameters, const AdamOptions& options)
    : options_(options) {
  for (Parameter* p : parameters) {
    if (!p->trainable) continue;
    const DType acc = acc_of(p->value.dtype());
    State s{p, p->value, Tensor::zeros(p->value.shape(), acc), Tensor::zeros(p->value.shape(), acc)};
    if (p->value.dtype() != acc) s.master = cast(p->value, acc);
    states_.push_back(std::move(s));
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
        const int64_t n = s.parameter->value.numel();
        if (s.parameter->value.dtype() != dtype || n == 0) continue;
        tensors.push_back({.n = n,
                           .param = s.parameter->value.data<T>(),
                           .master = s.master.data<A>(),
                           .grad = s.parameter->grad.data<A>(),
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

}  // namespace mimo
