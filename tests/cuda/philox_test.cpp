#include "kernels/philox.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Range {
  Distribution distribution;
  double a, b;
};
struct Piece {
  int64_t first, n;
};
// Blocks hold 1024 elements. Pieces start and end anywhere in a counter; a name's and an index's high words
// count.
constexpr Piece kPieces[] = {{0, 3001}, {3, 1}, {1, 2}, {1021, 1030}, {(int64_t{1} << 34) + 2, 97}, {5, 0}};
constexpr uint64_t kSeed = 0x123456789abcdef0, kName = 0xfedcba9876543210;

TEST(CudaRandomFill, SameBitsAsTheCpu) {
  constexpr Range ranges[] = {{Distribution::normal, 0.5, 2},
                              {Distribution::uniform, -1, 3},
                              {Distribution::constant, 0.1, 0},
                              {Distribution::log_uniform, 1, 16},
                              {Distribution::log_index, 16, 0}};
  for (const Range& r : ranges)
    for (const Piece& p : kPieces)
      check_cuda([&]<class T>(Case<T>& c) {
        return RandomFill<T>{.seed = kSeed,
                             .name = kName,
                             .first = p.first,
                             .n = p.n,
                             .distribution = r.distribution,
                             .a = r.a,
                             .b = r.b,
                             .out = c.exact("out", std::vector<T>(static_cast<size_t>(p.n)))};
      });
}

// exp and expm1 are the library's, whose last bit may differ; all values here lie in [2, 8), so the default
// tolerance of half an ulp of the largest allows at most one rounding to go the other way.
TEST(CudaRandomFill, InverseSoftplus) {
  for (const Piece& p : kPieces)
    check_cuda([&]<class T>(Case<T>& c) {
      return RandomFill<T>{.seed = kSeed,
                           .name = kName,
                           .first = p.first,
                           .n = p.n,
                           .distribution = Distribution::inverse_softplus,
                           .a = 1e-3,
                           .b = 0.1,
                           .out = c.out("out", 1, p.n)};
    });
}

}  // namespace
}  // namespace mimo::op_test
