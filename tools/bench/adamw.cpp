#include "kernels/adamw.h"

#include "kernels/reduce.h"
#include "tools/bench/bench.h"

namespace mimo::bench {
namespace {

constexpr int64_t kElements = 1 << 24;

void tensors(benchmark::internal::Benchmark* b) { b->ArgName("tensors")->Arg(1)->Arg(256); }

template <class T>
void adamw(benchmark::State& state) {
  using A = acc_t<T>;
  const int count = static_cast<int>(state.range(0));
  const int64_t n = kElements / count;
  auto param = operand<T>(kElements);
  auto master = operand<A>(std::is_same_v<T, A> ? 0 : kElements), m = operand<A>(kElements);
  const auto grad = operand<A>(kElements);
  std::vector<A> v(kElements, A(1));
  std::vector<AdamTensor<T>> list;
  for (int64_t i = 0; i < kElements; i += n) {
    AdamTensor<T> t{n, &param[i], nullptr, &grad[i], &m[i], &v[i], 1, 1};
    if constexpr (std::is_same_v<T, A>)
      t.master = t.param;
    else
      t.master = &master[i];
    list.push_back(t);
  }
  const AdamState s{1e-6, 0.9, 0.95, 1e-8, 0.1, 1, 10};
  const double moved = std::is_same_v<T, A> ? 7 * sizeof(A) : 7 * sizeof(A) + sizeof(T);
  measure(state, AdamW<T>{count, kElements, list.data(), &s}, 15.0 * kElements, moved * kElements);
}

template <class T>
void sum_squares(benchmark::State& state) {
  const int count = static_cast<int>(state.range(0));
  const auto x = operand<T>(kElements);
  std::vector<const T*> list;
  std::vector<int64_t> n(count, kElements / count);
  for (int64_t i = 0; i < kElements; i += n[0]) list.push_back(&x[i]);
  double result[2];
  measure(state, SumSquares<T>{count, kElements, list.data(), n.data(), result}, 2.0 * kElements,
          double(sizeof(T)) * kElements);
}

MIMO_BENCHMARK(adamw, tensors);
MIMO_BENCHMARK(sum_squares, tensors);

}  // namespace
}  // namespace mimo::bench
