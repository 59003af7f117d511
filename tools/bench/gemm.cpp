// Products of the sizes that models have: few rows, many rows, and those of small models on one thread. On a
// GPU they are cuBLASLt's, by its heuristic; torch's choice is beside them.
#include "kernels/gemm.h"

#include <fmt/core.h>

#include "tools/bench/bench.h"
#include "tools/bench/torch.h"

namespace mimo::bench {
namespace {

struct Shape {
  int64_t m, n, k;
};

// y = x W^T: the forward of a linear layer.
template <class T>
void linear(benchmark::State& state, Shape s) {
  const auto x = operand<T>(s.m * s.k), w = operand<T>(s.n * s.k);
  Array<T> y(s.m * s.n);
  const Gemm<T> op{.trans_b = true,
                   .m = s.m,
                   .n = s.n,
                   .k = s.k,
                   .a = {x.data(), s.k},
                   .b = {w.data(), s.k},
                   .c = {y.data(), s.n}};
  measure(state, op, 2.0 * static_cast<double>(s.m * s.n * s.k),
          static_cast<double>((x.size() + w.size() + y.size()) * static_cast<int64_t>(sizeof(T))));
  compare_with_torch(state, "torch",
                     fmt::format("matmul({}, {}, {}, {})", s.m, s.n, s.k, name_of(dtype_of<T>())));
}

// dW += dy^T x.
template <class T>
void weight_gradient(benchmark::State& state, Shape s) {
  const auto x = operand<T>(s.m * s.k), dy = operand<T>(s.m * s.n);
  Array<acc_t<T>> dw(s.n * s.k);
  const GemmAccumulate<T> op{.trans_a = true,
                             .m = s.n,
                             .n = s.k,
                             .k = s.m,
                             .a = {dy.data(), s.n},
                             .b = {x.data(), s.k},
                             .c = {dw.data(), s.k}};
  measure(state, op, 2.0 * static_cast<double>(s.m * s.n * s.k),
          static_cast<double>((x.size() + dy.size()) * static_cast<int64_t>(sizeof(T)) +
                              2 * dw.size() * static_cast<int64_t>(sizeof(acc_t<T>))));
}

template <class T>
void add_shape(Shape s) {
  const std::string shape = fmt::format("{}/{}x{}x{}", name_of(dtype_of<T>()), s.m, s.n, s.k);
  add_case("gemm/linear/" + shape, [s](benchmark::State& state) { linear<T>(state, s); });
  add_case("gemm/weight_gradient/" + shape, [s](benchmark::State& state) { weight_gradient<T>(state, s); });
}

[[maybe_unused]] const bool registered = [] {
  later([] {
    if (large()) {
      // Nemotron-H 8B: MLP in and out, Mamba in, q|k|v; 12B: MLP in; RADIO-H: MLP in and out; CLIP-L.
      for (const Shape s : {Shape{4096, 21504, 4096},
                            {16384, 21504, 4096},
                            {16384, 4096, 21504},
                            {16384, 18560, 4096},
                            {16384, 6144, 4096},
                            {16384, 20480, 5120},
                            {16512, 5120, 1280},
                            {16512, 1280, 5120},
                            {18464, 4096, 1024}})
        add_shape<bf16>(s);
      add_shape<float>({4096, 21504, 4096});
      add_shape<float>({16512, 5120, 1280});
      return;
    }
    for (const Shape s : {Shape{1, 64, 64},
                          {1, 256, 256},
                          {17, 32, 32},
                          {40, 64, 64},
                          {40, 256, 64},
                          {400, 32, 128},
                          {400, 256, 256},
                          {2048, 192, 768},
                          {2048, 768, 192},
                          {2048, 2048, 2048}})
      add_shape<float>(s);
    add_shape<bf16>({2048, 768, 192});
  });
  return true;
}();

}  // namespace
}  // namespace mimo::bench
