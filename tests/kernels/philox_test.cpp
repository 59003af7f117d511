#include "kernels/philox.h"

#include <algorithm>

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

// The known answers that come with Random123 (kat_vectors, philox4x32, 10 rounds).
TEST(Philox, PublishedVectors) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Philox4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Philox4{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Philox4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

template <class T>
std::vector<T> fill(Distribution d, double a, double b, int64_t n, int64_t first = 0, uint64_t name = 7) {
  std::vector<T> out(n);
  run_op(RandomFill<T>{.seed = 0x123456789abcdef0,
                       .name = name,
                       .first = first,
                       .n = n,
                       .distribution = d,
                       .a = a,
                       .b = b,
                       .out = out.data()});
  return out;
}

struct Range {
  Distribution distribution;
  double a, b;
};
constexpr Range kRanges[] = {{Distribution::normal, 0.5, 2},    {Distribution::uniform, -1, 3},
                             {Distribution::constant, 0.25, 0}, {Distribution::log_uniform, 1, 16},
                             {Distribution::log_index, 16, 0},  {Distribution::inverse_softplus, 1e-3, 0.1}};

template <class T>
void expect_same_bits(const std::vector<T>& a, const std::vector<T>& b, const char* what) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i)
    ASSERT_EQ(std::memcmp(&a[i], &b[i], sizeof(T)), 0)
        << what << ": element " << i << ", " << double(a[i]) << " and " << double(b[i]);
}

template <class T>
void check_pieces() {
  constexpr int64_t n = 3001;
  for (const Range& r : kRanges) {
    const auto whole = fill<T>(r.distribution, r.a, r.b, n);
    for (int64_t size : {1, 3, 64, 1021}) {
      std::vector<T> pieces;
      for (int64_t first = 0; first < n; first += size) {
        const auto piece = fill<T>(r.distribution, r.a, r.b, std::min(size, n - first), first);
        pieces.insert(pieces.end(), piece.begin(), piece.end());
      }
      expect_same_bits(pieces, whole, "in pieces");
    }
  }
}

TEST(RandomFill, InPiecesAsAtOnce) {
  check_pieces<float>();
  check_pieces<bf16>();
  check_pieces<double>();
}

TEST(RandomFill, SameBitsForAnyNumberOfThreads) {
  const int before = thread_count();
  for (const Range& r : kRanges) {
    set_thread_count(1);
    const auto one = fill<float>(r.distribution, r.a, r.b, 40001);
    for (int threads : {2, 3}) {
      set_thread_count(threads);
      expect_same_bits(fill<float>(r.distribution, r.a, r.b, 40001), one, "threads");
    }
  }
  set_thread_count(before);
}

// float is the double value rounded once, bf16 the float value rounded: a bf16 parameter is its rounded
// master.
TEST(RandomFill, DtypesAgree) {
  for (const Range& r : kRanges) {
    const auto d = fill<double>(r.distribution, r.a, r.b, 1000);
    const auto f = fill<float>(r.distribution, r.a, r.b, 1000);
    const auto h = fill<bf16>(r.distribution, r.a, r.b, 1000);
    for (int i = 0; i < 1000; ++i) {
      EXPECT_EQ(f[i], float(d[i]));
      EXPECT_EQ(h[i].bits, bf16(f[i]).bits);
    }
  }
}

// Each value against the definition, computed from the words in long double.
TEST(RandomFill, FollowsTheDefinition) {
  constexpr uint64_t seed = 0x123456789abcdef0, name = 0xfedcba9876543210;
  constexpr int64_t first = (int64_t{1} << 34) + 3;  // the counter's high word is used
  constexpr long double scale = 0x1p-32L, two_pi = 6.283185307179586476925286766559L;
  const auto half = [](uint64_t x) {
    return std::array{static_cast<uint32_t>(x), static_cast<uint32_t>(x >> 32)};
  };
  for (const Range& r : kRanges) {
    std::vector<double> got(4000);
    run_op(RandomFill<double>{.seed = seed,
                              .name = name,
                              .first = first,
                              .n = 4000,
                              .distribution = r.distribution,
                              .a = r.a,
                              .b = r.b,
                              .out = got.data()});
    for (int64_t k = 0; k < 4000; ++k) {
      const uint64_t i = static_cast<uint64_t>(first + k), lane = i % 4;
      const Philox4 w = philox({half(i / 4)[0], half(i / 4)[1], half(name)[0], half(name)[1]}, half(seed));
      const long double a = r.a, b = r.b, u = w[lane] * scale;
      long double want = a;
      if (r.distribution == Distribution::normal) {
        const long double radius = std::sqrt(-2 * std::log((w[lane & 2] + 0.5L) * scale));
        const long double angle = two_pi * w[lane | 1] * scale;
        want = a + b * radius * (i % 2 ? std::sin(angle) : std::cos(angle));
      } else if (r.distribution == Distribution::uniform) {
        want = a + (b - a) * u;
      } else if (r.distribution == Distribution::log_uniform) {
        want = std::log(a + (b - a) * u);
      } else if (r.distribution == Distribution::log_index) {
        want = std::log(1.0L + i % 16);
      } else if (r.distribution == Distribution::inverse_softplus) {
        const long double t = std::exp(std::log(a) + (std::log(b) - std::log(a)) * u);
        want = t + std::log(-std::expm1(-t));
      }
      ASSERT_NEAR(got[k], double(want), 4 * 0x1p-52 * std::max(1.0L, std::fabs(want)));
    }
  }
}

// Moments within five standard errors, which a right generator misses once in 10^6.
TEST(RandomFill, Moments) {
  constexpr int n = 1 << 18;
  const double five = 5 / std::sqrt(double(n));
  const auto z = fill<double>(Distribution::normal, 0, 1, n);
  double m[5] = {};
  for (double x : z)
    for (int k = 1; k <= 4; ++k) m[k] += std::pow(x, k) / n;
  EXPECT_NEAR(m[1], 0, five);
  EXPECT_NEAR(m[2], 1, five * std::sqrt(2.0));   // var z^2 = 2
  EXPECT_NEAR(m[3], 0, five * std::sqrt(15.0));  // var z^3 = 15
  EXPECT_NEAR(m[4], 3, five * std::sqrt(96.0));  // var z^4 = 105 - 9
  double neighbours = 0;
  for (int i = 0; i < n; i += 2) neighbours += z[i] * z[i + 1] / (n / 2);
  EXPECT_NEAR(neighbours, 0, five * std::sqrt(2.0));
  EXPECT_NEAR(std::count_if(z.begin(), z.end(), [](double x) { return std::fabs(x) < 1; }) / double(n),
              std::erf(std::sqrt(0.5)), five * 0.5);

  const auto u = fill<double>(Distribution::uniform, 0, 1, n);
  double mean = 0, square = 0;
  for (double x : u) mean += x / n, square += x * x / n;
  EXPECT_NEAR(mean, 0.5, five * std::sqrt(1 / 12.0));
  EXPECT_NEAR(square, 1 / 3.0, five * std::sqrt(4 / 45.0));
  EXPECT_GE(*std::min_element(u.begin(), u.end()), 0);
  EXPECT_LT(*std::max_element(u.begin(), u.end()), 1);

  // softplus of inverse_softplus is log-uniform in [a, b].
  for (double x : fill<double>(Distribution::inverse_softplus, 1e-3, 0.1, 1000)) {
    const double t = std::log1p(std::exp(x));
    EXPECT_GE(t, 1e-3 * (1 - 1e-12));
    EXPECT_LE(t, 0.1 * (1 + 1e-12));
  }
}

TEST(RandomFill, NamesAndSeedsDiffer) {
  const auto a = fill<float>(Distribution::normal, 0, 1, 100, 0, 1),
             b = fill<float>(Distribution::normal, 0, 1, 100, 0, 2);
  EXPECT_NE(a, b);
  EXPECT_TRUE(fill<float>(Distribution::normal, 0, 1, 0).empty());
}

}  // namespace
}  // namespace mimo::op_test
