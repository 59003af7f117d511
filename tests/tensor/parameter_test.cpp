#include "tensor/parameter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tensor/random.h"

namespace mimo {
namespace {

constexpr Initializer kNormal{Distribution::normal, 0, 0.02};

Parameter make(const std::string& name, const Dims& shape, const Shard& shard, Initializer init = kNormal) {
  Parameter p;
  p.name = name;
  p.shape = shape;
  p.shard = shard;
  p.init = init;
  return p;
}

template <class T>
std::vector<T> values(const std::string& name, const Dims& shape, const Shard& shard, uint64_t seed = 1,
                      Initializer init = kNormal) {
  Parameter p = make(name, shape, shard, init);
  materialize(p, dtype_of<T>(), seed);
  return p.value.to_vector<T>();
}

TEST(HashName, PublishedVectors) {
  EXPECT_EQ(hash_name(""), 0xcbf29ce484222325u);
  EXPECT_EQ(hash_name("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(hash_name("b"), 0xaf63df4c8601f1a5u);
  EXPECT_EQ(hash_name("foobar"), 0x85944171f73967e8u);
  static_assert(hash_name("language.final_norm.weight") != hash_name("vision.final_norm.weight"));
}

template <class T>
class ParameterValues : public testing::Test {};
using Types = testing::Types<float, bf16, double>;
TYPED_TEST_SUITE(ParameterValues, Types);

// Every part of every split has the elements of the whole, bit for bit.
TYPED_TEST(ParameterValues, AreTheSameForAnySplit) {
  using T = TypeParam;
  const Dims shape{37, 11};
  for (Distribution d :
       {Distribution::normal, Distribution::uniform, Distribution::constant, Distribution::log_uniform,
        Distribution::log_index, Distribution::inverse_softplus}) {
    const Initializer init{d, 3, 5};
    const std::vector<T> all = values<T>("w", shape, whole(shape), 7, init);
    const auto check = [&](const Shard& shard) {
      const std::vector<T> part = values<T>("w", shape, shard, 7, init);
      ASSERT_EQ(static_cast<int64_t>(part.size()), numel(shard));
      for (const auto& run : overlap(shard, whole(shape)))
        for (int64_t i = 0; i < run.count; ++i) ASSERT_EQ(part[run.a + i], all[run.b + i]);
    };
    for (int n : {1, 2, 3, 5})
      for (int r = 0; r < n; ++r) {
        check(split(shape, 0, {37}, r, n, true));
        check(split(shape, 1, {5, 6}, r, n, true));
        check(split(shape, 0, {20, 17}, r, n, true));
        check(cut(whole(shape), r * 407 / n, (r + 1) * 407 / n));  // starts at any of the four lanes
      }
    Shard shuffled{{{30, 0}, {7, 11}}, {{0, 3}, {30, 8}}, {{0, 0}, {30, 3}}};
    check(shuffled);
  }
}

TYPED_TEST(ParameterValues, AreRoundedFromOneReal) {
  using T = TypeParam;
  const Dims shape{1000};
  const auto exact = values<double>("w", shape, whole(shape));
  const auto rounded = values<T>("w", shape, whole(shape));
  for (size_t i = 0; i < exact.size(); ++i) ASSERT_EQ(rounded[i], T(acc_t<T>(exact[i])));
}

TYPED_TEST(ParameterValues, DifferByNameSeedAndIndex) {
  using T = TypeParam;
  const Dims shape{1000};
  const auto base = values<T>("a", shape, whole(shape), 1);
  EXPECT_EQ(base, values<T>("a", shape, whole(shape), 1));
  const auto equal = [&](const std::vector<T>& other) {
    int64_t n = 0;
    for (size_t i = 0; i < base.size(); ++i) n += base[i] == other[i];
    return n;
  };
  // Independent values: two normals round to the same bf16 with probability below 2^-8 (its step is at most
  // 2^-7 of the value, the density at most 0.4), so 1000 pairs agree 4 times on average; 40 is out of reach.
  EXPECT_LT(equal(values<T>("b", shape, whole(shape), 1)), 40);
  EXPECT_LT(equal(values<T>("a", shape, whole(shape), 2)), 40);
  EXPECT_LT(equal(values<T>("a", shape, whole(shape), uint64_t{1} << 32)), 40);
  std::vector<T> shifted(base.begin() + 1, base.end());
  shifted.push_back(base[0]);
  EXPECT_LT(equal(shifted), 40);
}

TEST(Parameter, OrderOfMaterialisationDoesNotMatter) {
  const std::vector<std::string> names{"a", "b", "c", "d"};
  std::map<std::string, std::vector<float>> first;
  for (const auto& n : names) first[n] = values<float>(n, {5, 7}, whole({5, 7}));
  for (auto n = names.rbegin(); n != names.rend(); ++n)
    EXPECT_EQ(values<float>(*n, {5, 7}, whole({5, 7})), first[*n]);
}

TEST(Parameter, NormalHasItsMoments) {
  constexpr int64_t n = 1 << 16;
  const auto v = values<double>("w", {n}, whole({n}), 3, {Distribution::normal, 1.5, 2});
  double mean = 0, variance = 0;
  for (double x : v) mean += x / n;
  for (double x : v) variance += (x - mean) * (x - mean) / n;
  // Standard errors: 2 / sqrt(n) of the mean, 4 sqrt(2 / n) of the variance; five of each.
  EXPECT_NEAR(mean, 1.5, 5 * 2 / 256.);
  EXPECT_NEAR(variance, 4, 5 * 4 * std::sqrt(2.) / 256);
}

TEST(Parameter, ValueAndGradientHaveTheLocalShape) {
  Parameter p = make("in_proj", {64, 5}, split({64, 5}, 0, {16, 16, 12, 12, 8}, 1, 4));
  materialize(p, DType::bf16, 1);
  EXPECT_EQ(p.value.shape(), (Dims{16, 5}));
  EXPECT_EQ(p.value.dtype(), DType::bf16);
  EXPECT_EQ(p.grad.shape(), (Dims{16, 5}));
  EXPECT_EQ(p.grad.dtype(), DType::f32);
  EXPECT_EQ(p.grad.to_vector<float>(), std::vector<float>(80, 0));
  materialize(p, DType::f64, 1);
  EXPECT_EQ(p.grad.dtype(), DType::f64);
  p.trainable = false;
  materialize(p, DType::f32, 1);
  EXPECT_FALSE(p.grad.defined());
}

TEST(Parameter, SizeZeroAndBadInput) {
  Parameter p = make("embedding", {2, 6}, split({2, 6}, 0, {2}, 0, 4, true));
  materialize(p, DType::f32, 1);
  EXPECT_EQ(p.value.shape(), (Dims{0, 6}));
  EXPECT_EQ(p.grad.shape(), (Dims{0, 6}));
  p.shard = whole({3, 6});
  EXPECT_THROW(materialize(p, DType::f32, 1), std::logic_error);
  EXPECT_THROW(materialize(p, DType::i32, 1), std::invalid_argument);
}

}  // namespace
}  // namespace mimo
