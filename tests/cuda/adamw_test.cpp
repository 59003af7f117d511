#include "kernels/adamw.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

// A result of acc_t<T> that starts from f(random values).
template <class T, class F>
acc_t<T>* changed(Case<T>& c, const std::string& name, int64_t n, uint64_t seed, F&& f) {
  std::vector<double> values = random_values(n, seed);
  for (double& x : values) x = f(x);
  return c.acc_inout(name, 1, n, values);
}

// Tensors of these lengths, `offset` elements behind a 16-byte boundary.
template <class T>
AdamW<T> adamw(Case<T>& c, const std::vector<int64_t>& sizes, int64_t offset, int64_t t) {
  using A = acc_t<T>;
  std::vector<AdamTensor<T>> tensors;
  int64_t total = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t n = sizes[i] + offset;
    const uint64_t seed = 10 * i;
    AdamTensor<T> a{};
    a.n = sizes[i];
    a.master = changed(c, "master", n, seed, [](double x) { return x; }) + offset;
    a.param = c.out("param", 1, n) + offset;  // stays NaN where the master is the parameter
    if constexpr (std::is_same_v<T, A>) a.param = a.master;
    a.grad = c.acc_in("grad", 1, n, random_values(n, seed + 1)) + offset;
    a.m = changed(c, "m", n, seed + 2, [](double x) { return x / 4; }) + offset;
    a.v = changed(c, "v", n, seed + 3, [](double x) { return x * x; }) + offset;
    a.decay = i % 2 == 0 ? 1 : 0;
    a.lr = i % 3 == 0 ? 1 : 0.5;
    tensors.push_back(a);
    total += sizes[i];
  }
  const AdamState state{
      .lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .scale = 0.25, .t = t};
  return {.tensors = static_cast<int>(sizes.size()),
          .total = total,
          .tensor = c.data(tensors),
          .state = c.data(std::vector<AdamState>{state})};
}

TEST(CudaAdamW, ManyTensors) {
  std::vector<int64_t> sizes = {0, 1, 77, 0, 4096, 9001, 40000};
  for (int i = 0; i < 40; ++i) sizes.push_back(i % 5 == 0 ? 0 : 3 * i);
  for (const int64_t t : {1, 1000}) check_cuda([&]<class T>(Case<T>& c) { return adamw(c, sizes, 0, t); });
}

TEST(CudaAdamW, OffBoundaries) {
  check_cuda([&]<class T>(Case<T>& c) { return adamw(c, {5, 5000, 3}, 1, 7); });
}

TEST(CudaAdamW, Nothing) {
  check_cuda([&]<class T>(Case<T>& c) { return adamw(c, {}, 0, 1); });
  check_cuda([&]<class T>(Case<T>& c) { return adamw(c, {0, 0}, 0, 1); });
}

// A shard of a parameter is updated to the same bits as the whole: ZeRO's cut changes nothing.
TEST(CudaAdamW, InPiecesAsAtOnce) {
  constexpr int64_t n = 5001;
  const auto update = [&](int64_t piece) {
    Case<float> c(cuda_context());
    const AdamW<float> whole = adamw(c, {n}, 0, 3);
    const AdamTensor<float> a = read(whole.tensor, 1)[0];
    std::vector<AdamTensor<float>> tensors;
    for (int64_t i = 0; i < n; i += piece)
      tensors.push_back(
          {std::min(piece, n - i), a.param + i, a.master + i, a.grad + i, a.m + i, a.v + i, 1, 1});
    run(cuda_context(), AdamW<float>{.tensors = static_cast<int>(tensors.size()),
                                     .total = n,
                                     .tensor = c.data(tensors),
                                     .state = whole.state});
    synchronize();
    return read(a.param, n);
  };
  EXPECT_EQ(update(777), update(n));
}

}  // namespace
}  // namespace mimo::op_test
