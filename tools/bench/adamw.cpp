#include "kernels/adamw.h"

#include <fmt/format.h>

#include "kernels/reduce.h"
#include "tools/bench/bench.h"
#include "tools/bench/torch.h"

namespace mimo::bench {
namespace {

int64_t elements() { return large() ? 1 << 28 : 1 << 24; }

void tensors(benchmark::internal::Benchmark* b) { b->ArgName("tensors")->Arg(1)->Arg(256); }

template <class T>
void adamw(benchmark::State& state) {
  using A = acc_t<T>;
  const int count = static_cast<int>(state.range(0));
  const int64_t total = elements(), n = total / count;
  auto param = operand<T>(total);
  auto master = operand<A>(std::is_same_v<T, A> ? 0 : total), m = operand<A>(total);
  const auto grad = operand<A>(total);
  Array<A> v(total, A(1));
  std::vector<AdamTensor<T>> list;
  for (int64_t i = 0; i < total; i += n) {
    AdamTensor<T> t{.n = n,
                    .param = param.data() + i,
                    .master = nullptr,
                    .grad = grad.data() + i,
                    .m = m.data() + i,
                    .v = v.data() + i,
                    .decay = 1,
                    .lr = 1};
    if constexpr (std::is_same_v<T, A>)
      t.master = t.param;
    else
      t.master = master.data() + i;
    list.push_back(t);
  }
  const Array<AdamState> s(std::vector<AdamState>{
      {.lr = 1e-6, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .scale = 1, .t = 10}});
  const Array<AdamTensor<T>> table(list);
  const double moved = std::is_same_v<T, A> ? 7 * sizeof(A) : 7 * sizeof(A) + sizeof(T);
  measure(state, AdamW<T>{.tensors = count, .total = total, .tensor = table.data(), .state = s.data()},
          15.0 * total, moved * total);
  if constexpr (std::is_same_v<T, float>)
    compare_with_torch(state, "torch fused", fmt::format("adamw({}, {})", count, total));
}

template <class T>
void sum_squares(benchmark::State& state) {
  const int count = static_cast<int>(state.range(0));
  const int64_t total = elements();
  const auto x = operand<T>(total);
  std::vector<const T*> list;
  std::vector<int64_t> n(count, total / count);
  for (int64_t i = 0; i < total; i += n[0]) list.push_back(x.data() + i);
  Array<double> result(2);
  const Array<const T*> table(list);
  const Array<int64_t> lengths(n);
  measure(
      state,
      SumSquares<T>{
          .tensors = count, .total = total, .x = table.data(), .n = lengths.data(), .result = result.data()},
      2.0 * total, double(sizeof(T)) * total);
}

MIMO_BENCHMARK(adamw, tensors);
MIMO_BENCHMARK(sum_squares, tensors);

}  // namespace
}  // namespace mimo::bench
