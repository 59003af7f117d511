// The optimizer against closed forms worked out apart from it.
#include "parallel/optimizer.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

namespace mimo {
namespace {

constexpr AdamOptions kOptions{.beta1 = 0.7, .beta2 = 0.9, .eps = 0.3, .weight_decay = 0.4};
constexpr int kSteps = 5;
double rate(int t) { return 0.1 / t; }
double scale(int t) { return 1.0 / (1 + t % 3); }
// Of element i in step t, from 1: of either sign, from 1e-3 to 3, some of them 0.
double gradient(int64_t i, int t) {
  return i % 7 == 0 ? 0 : 3 * std::sin(static_cast<double>(i * kSteps + t)) * std::pow(0.1, i % 4);
}
double initial(int64_t i) { return std::cos(static_cast<double>(i)); }

// Closed form of element i after t updates: moments are means of all gradients with weights beta^(age), so
// that the correction of their bias is in the sum of the weights.
double expected(int64_t i, int t, bool decays) {
  double p = initial(i);
  for (int s = 1; s <= t; ++s) {
    double first = 0, second = 0, of_first = 0, of_second = 0;
    for (int k = 1; k <= s; ++k) {
      const double g = gradient(i, k) * scale(k), w1 = std::pow(0.7, s - k), w2 = std::pow(0.9, s - k);
      first += w1 * g, of_first += w1;
      second += w2 * g * g, of_second += w2;
    }
    const double shrunk = decays ? p * (1 - rate(s) * 0.4) : p;
    p = shrunk - rate(s) * (first / of_first) / (std::sqrt(second / of_second) + 0.3);
  }
  return p;
}

Parameter parameter(const std::string& name, int64_t n, DType dtype, bool decays, bool trainable = true) {
  Parameter p;
  p.name = name, p.shape = {n}, p.shard = whole(p.shape);
  p.decay = decays, p.trainable = trainable;
  materialize(p, dtype, 1);
  dispatch(dtype, [&]<class T>() {
    for (int64_t i = 0; i < n; ++i) p.value.data<T>()[i] = T(static_cast<acc_t<T>>(initial(i)));
  });
  return p;
}

// Elements as doubles.
std::vector<double> numbers(const Tensor& t) {
  std::vector<double> out;
  dispatch(t.dtype(), [&]<class T>() {
    for (const T x : t.to_vector<T>()) out.push_back(static_cast<double>(static_cast<acc_t<T>>(x)));
  });
  return out;
}

class Update : public testing::TestWithParam<DType> {};

TEST_P(Update, IsAdamWByItsClosedForm) {
  const DType dtype = GetParam();
  constexpr int64_t n = 37;
  Parameter matrix = parameter("matrix", n, dtype, true), norm = parameter("norm", n, dtype, false),
            frozen = parameter("frozen", n, dtype, true, false);
  const std::vector<double> before = numbers(frozen.value);
  Optimizer optimizer({&matrix, &frozen, &norm}, kOptions);
  ASSERT_EQ(optimizer.states().size(), 2u);
  // A bf16 parameter begins as its rounded value; from there its master is as exact as fp32.
  const std::vector<double> start = numbers(optimizer.states()[0].master);
  for (int t = 1; t <= kSteps; ++t) {
    for (Parameter* p : {&matrix, &norm})
      dispatch(p->grad.dtype(), [&]<class A>() {
        for (int64_t i = 0; i < n; ++i) p->grad.data<A>()[i] = static_cast<A>(gradient(i, t));
      });
    optimizer.update(rate(t), scale(t), t);
    optimizer.zero_gradients();
    for (const Optimizer::State& s : optimizer.states()) {
      const std::vector<double> got = numbers(s.master);
      for (int64_t i = 0; i < n; ++i) {
        // Decay shrinks what the initial value was rounded by; all else is ten roundings a step of numbers
        // below 2.
        double kept = 1;
        for (int k = 1; k <= t && s.parameter->decay; ++k) kept *= 1 - rate(k) * 0.4;
        const double want = expected(i, t, s.parameter->decay) + kept * (start[i] - initial(i));
        const double ulp = dtype == DType::f64 ? 0x1p-52 : 0x1p-23;
        EXPECT_NEAR(got[i], want, 20 * t * ulp) << s.parameter->name << "[" << i << "] after update " << t;
      }
      for (const double g : numbers(s.parameter->grad)) EXPECT_EQ(g, 0);
    }
  }
  EXPECT_EQ(numbers(frozen.value), before);
}
INSTANTIATE_TEST_SUITE_P(DTypes, Update, testing::Values(DType::f32, DType::bf16, DType::f64),
                         [](const auto& dtype) { return std::string(name_of(dtype.param)); });

// Cut in portions, the updates are bit for bit those of the whole, each of its own elements alone.
TEST_P(Update, OfPortionsIsThatOfTheWhole) {
  const DType dtype = GetParam();
  constexpr int64_t n = 37;
  const std::vector<int64_t> ends = {0, 5, 5, 30, n};  // one of none
  Parameter whole = parameter("p", n, dtype, true), parts = parameter("p", n, dtype, true);
  Optimizer one({&whole}, kOptions);
  std::vector<Optimizer> cut;
  for (size_t i = 0; i + 1 < ends.size(); ++i)
    cut.emplace_back(std::vector{&parts}, kOptions, [&](const Parameter&) {
      return Optimizer::Portion{ends[i], ends[i + 1], {static_cast<int>(i)}};
    });
  for (int t = 1; t <= kSteps; ++t) {
    for (Parameter* p : {&whole, &parts})
      dispatch(p->grad.dtype(), [&]<class A>() {
        for (int64_t i = 0; i < n; ++i) p->grad.data<A>()[i] = static_cast<A>(gradient(i, t));
      });
    one.update(rate(t), scale(t), t);
    for (Optimizer& o : cut) o.update(rate(t), scale(t), t);
    EXPECT_EQ(numbers(parts.value), numbers(whole.value)) << "update " << t;
  }
  const Optimizer::State& all = one.states()[0];
  EXPECT_EQ(all.shard, whole.shard);
  for (size_t i = 0; i < cut.size(); ++i) {
    const Optimizer::State& s = cut[i].states()[0];
    EXPECT_EQ(numel(s.shard), ends[i + 1] - ends[i]);
    for (const auto& [mine, its] : {std::pair{s.master, all.master}, {s.m, all.m}, {s.v, all.v}})
      EXPECT_EQ(numbers(mine), numbers(its.slice(ends[i], ends[i + 1]))) << "portion " << i;
    for (const ShardedTensor& t : cut[i].tensors(2)) EXPECT_EQ(t.writes, i == 2) << t.name;
  }
}

// A master copy that a checkpoint lacked is the parameter's value again.
TEST(Master, RestartsAtTheParameter) {
  Parameter p = parameter("p", 8, DType::bf16, true), q = parameter("q", 8, DType::bf16, true);
  Optimizer optimizer({&p, &q}, kOptions, [](const Parameter&) { return Optimizer::Portion{3, 8, {}}; });
  for (Optimizer::State& s : optimizer.states()) fill(s.master, 100);
  optimizer.restart({"p/master", "q/exp_avg"});
  EXPECT_EQ(numbers(optimizer.states()[0].master), numbers(p.value.slice(3, 8)));
  EXPECT_EQ(numbers(optimizer.states()[1].master), std::vector<double>(5, 100));
}

// Nearest of the two bf16 around x, by distance; of two equally near the one whose last bit is 0.
uint16_t nearest(float x) {
  const auto lower = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);  // towards zero
  const uint16_t upper = lower + 1;
  const auto value = [](uint16_t bits) { return double(std::bit_cast<float>(uint32_t{bits} << 16)); };
  const double down = std::abs(x - value(lower)), up = std::abs(value(upper) - x);
  if (down != up) return down < up ? lower : upper;
  return lower % 2 == 0 ? lower : upper;
}

TEST(Master, RoundsToTheNearestParameterTiesToEven) {
  // Around every place between two neighbours, even and odd ones, of both signs and several sizes.
  std::vector<float> masters;
  for (const uint32_t high : {0x3f80u, 0x3f81u, 0xbf80u, 0xbfffu, 0x0041u, 0x7f00u, 0xc2a3u})
    for (const uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      masters.push_back(std::bit_cast<float>(high << 16 | low));
  const auto n = static_cast<int64_t>(masters.size());
  Parameter p = parameter("p", n, DType::bf16, true);
  Optimizer optimizer({&p}, kOptions);
  std::copy(masters.begin(), masters.end(), optimizer.states()[0].master.data<float>());
  optimizer.update(0, 1, 1);  // a step of no length: the same masters
  EXPECT_EQ(optimizer.states()[0].master.to_vector<float>(), masters);
  for (int64_t i = 0; i < n; ++i)
    EXPECT_EQ(p.value.data<bf16>()[i].bits, nearest(masters[i])) << "of " << masters[i];
}

// Small updates add up in the master although each is lost in the parameter.
TEST(Master, KeepsWhatTheParameterCannot) {
  Parameter p = parameter("p", 1, DType::bf16, false);
  Optimizer optimizer({&p}, {.beta1 = 0, .beta2 = 0, .eps = 1e-12, .weight_decay = 0});
  for (int t = 1; t <= 64; ++t) {
    p.grad.data<float>()[0] = -1;
    optimizer.update(0x1p-12, 1, t);
  }
  EXPECT_FLOAT_EQ(optimizer.states()[0].master.data<float>()[0], 1 + 64 * 0x1p-12f);
  EXPECT_EQ(float(p.value.data<bf16>()[0]), 1 + 0x1p-6f);
}

}  // namespace
}  // namespace mimo
