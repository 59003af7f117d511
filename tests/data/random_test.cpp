#include "data/random.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "data/loader.h"
#include "tensor/random.h"
#include "tests/io/temp_dir.h"

namespace mimo {
namespace {

// Computed by another program from the definition in kernels/philox.h.
TEST(RandomStream, Pinned) {
  RandomStream r(0x123456789abcdef0, "digits.train", 7);
  for (uint32_t expected : {0xabcfd7adu, 0xcf6262e2u, 0x9b1528cau, 0xe544d740u, 0xcce070c2u, 0x2427248fu,
                            0x5b6b915eu, 0x113b737fu})
    EXPECT_EQ(r.bits(), expected);
}

TEST(RandomStream, IsAPieceOfTheStreamOfItsName) {
  const uint64_t name = hash_name("noise");
  RandomStream r(5, "noise", 3);
  for (uint32_t block = 0; block < 5; ++block)
    for (uint32_t expected :
         philox({block, 3, static_cast<uint32_t>(name), static_cast<uint32_t>(name >> 32)}, {5, 0}))
      EXPECT_EQ(r.bits(), expected);
}

TEST(RandomStream, StreamsDiffer) {
  std::set<uint32_t> first;
  for (uint64_t seed : {uint64_t{1}, uint64_t{2}, uint64_t{1} << 32})
    for (const char* name : {"a", "b"})
      for (uint32_t index : {0u, 1u, 2u}) first.insert(RandomStream(seed, name, index).bits());
  EXPECT_EQ(first.size(), 18u);
}

// Bounds are five standard deviations of the estimates.
TEST(RandomStream, Moments) {
  constexpr int n = 40000;
  RandomStream r(1, "moments", 0);
  double mean = 0, square = 0, normal_mean = 0, normal_square = 0, fourth = 0;
  for (int i = 0; i < n; ++i) {
    const double u = r.uniform(), z = r.normal();
    EXPECT_GE(u, 0);
    EXPECT_LT(u, 1);
    mean += u / n, square += u * u / n;
    normal_mean += z / n, normal_square += z * z / n, fourth += z * z * z * z / n;
  }
  EXPECT_NEAR(mean, 0.5, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(square, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / n));
  EXPECT_NEAR(normal_mean, 0, 5 * std::sqrt(1.0 / n));
  EXPECT_NEAR(normal_square, 1, 5 * std::sqrt(2.0 / n));
  EXPECT_NEAR(fourth, 3, 5 * std::sqrt(96.0 / n));
}

TEST(RandomStream, BelowIsEven) {
  constexpr int n = 7000;
  RandomStream r(1, "below", 0);
  std::vector<int> count(7);
  for (int i = 0; i < n; ++i) ++count.at(r.below(7));
  for (int c : count) EXPECT_NEAR(c, 1000, 5 * std::sqrt(n * (1.0 / 7) * (6.0 / 7)));
  EXPECT_EQ(r.below(1), 0u);
}

std::vector<int64_t> all(int64_t n, uint64_t seed, uint64_t epoch) {
  const Permutation p(n, seed, epoch);
  std::vector<int64_t> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(p(i));
  return out;
}

TEST(Permutation, Pinned) {
  using Order = std::vector<int64_t>;
  EXPECT_EQ(all(10, 1, 0), (Order{1, 0, 9, 2, 7, 4, 8, 5, 6, 3}));
  EXPECT_EQ(all(10, 1, 1), (Order{4, 1, 2, 5, 3, 0, 7, 6, 9, 8}));
  EXPECT_EQ(all(10, 2, 0), (Order{3, 5, 1, 6, 2, 0, 9, 8, 7, 4}));
}

TEST(Permutation, IsABijection) {
  for (int64_t n = 1; n <= 200; ++n) {
    std::vector<int64_t> p = all(n, 3, 4), sorted(static_cast<size_t>(n));
    std::iota(sorted.begin(), sorted.end(), 0);
    std::sort(p.begin(), p.end());
    ASSERT_EQ(p, sorted) << n;
  }
  for (int64_t n : {4095, 4096, 4097, 36000, 65537}) {
    std::vector<bool> seen(static_cast<size_t>(n));
    for (int64_t x : all(n, 1, 0)) {
      ASSERT_TRUE(x >= 0 && x < n && !seen[static_cast<size_t>(x)]) << n;
      seen[static_cast<size_t>(x)] = true;
    }
  }
}

TEST(Permutation, HugeOnesStayInsideAndDoNotCollide) {
  for (int64_t n : {(int64_t{1} << 32) + 1, (int64_t{1} << 62) + 1, INT64_MAX}) {
    const Permutation p(n, 9, 1);
    std::set<int64_t> values;
    for (int64_t i = 0; i < 500; ++i) values.insert(p(i)), values.insert(p(n - 1 - i));
    EXPECT_EQ(values.size(), 1000u) << n;
    EXPECT_GE(*values.begin(), 0);
    EXPECT_LT(*values.rbegin(), n);
  }
}

// A random permutation keeps one element in place on average, with variance 1, and its i and p(i) are not
// correlated: a correlation of n pairs has a standard deviation of 1 / sqrt(n - 1).
TEST(Permutation, DiffersBySeedAndEpochAndLooksRandom) {
  constexpr int64_t n = 1000;
  const std::vector<std::vector<int64_t>> orders{all(n, 1, 0), all(n, 1, 1), all(n, 2, 0),
                                                 all(n, uint64_t{1} << 32, 0), all(n, 1, uint64_t{1} << 32)};
  std::vector<int64_t> identity(n);
  std::iota(identity.begin(), identity.end(), 0);
  const auto compare = [&](const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
    int equal = 0;
    double correlation = 0;
    for (size_t i = 0; i < n; ++i) {
      equal += a[i] == b[i];
      correlation += (a[i] - 499.5) * (b[i] - 499.5) / (n * (n * n - 1) / 12.0);
    }
    EXPECT_LE(equal, 6);
    EXPECT_NEAR(correlation, 0, 5 / std::sqrt(n - 1.0));
  };
  for (size_t i = 0; i < orders.size(); ++i) {
    compare(orders[i], identity);
    for (size_t j = 0; j < i; ++j) compare(orders[i], orders[j]);
  }
}

TEST(Permutation, RefusesNothing) {
  EXPECT_THROW(Permutation(0, 1, 0), std::logic_error);
  EXPECT_THROW(Permutation(5, 1, 0)(5), std::logic_error);
  EXPECT_THROW(Permutation(5, 1, 0)(-1), std::logic_error);
}

TEST(SampleOrder, EpochsFollowEachOther) {
  const int64_t n = 7;
  const SampleOrder order(n, 3);
  std::vector<int64_t> expected;
  for (uint64_t epoch = 0; epoch < 5; ++epoch)
    for (int64_t x : all(n, 3, epoch)) expected.push_back(x);
  EXPECT_EQ(order.samples(0, 5 * n), expected);
  for (int64_t batch : {1, 3, 4, 10, 20})  // also over borders, and larger than an epoch
    for (int64_t at = 0; at + batch <= 5 * n; at += batch)
      EXPECT_EQ(order.samples(at, batch),
                std::vector<int64_t>(expected.begin() + at, expected.begin() + at + batch));
  EXPECT_TRUE(order.samples(3, 0).empty());
}

TEST(SampleOrder, RefusesAnEmptySplit) {
  EXPECT_CONTAINS(thrown<ConfigError>([] { SampleOrder(0, 1); }), "[data.path] nothing to train on");
}

}  // namespace
}  // namespace mimo
