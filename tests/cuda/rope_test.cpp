#include "kernels/rope.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Shape {
  int64_t tokens;
  int heads, head_dim, rotary;
  int64_t pad = 0;
  double theta = 10000;
};
// Three blocks of tokens and more with one to eight tokens each; one and three tables of pairs; some dims
// copied, none, all; vectors and not.
constexpr Shape kShapes[] = {{1, 3, 16, 16, 8},  {3, 2, 48, 32, 8},   {5, 3, 16, 10, 0},
                             {70, 2, 32, 16, 0}, {3, 2, 320, 320, 0}, {3, 1, 272, 262, 0},
                             {4, 3, 16, 0, 8},   {3, 2, 16, 16, 1},   {0, 3, 16, 16, 0},
                             {3, 0, 16, 16, 0},  {2, 3, 7, 4, 2, 1e6}};

std::vector<int32_t> positions(int64_t tokens) {
  // Beyond 2^26 the last bits of a machine's pow would show in float.
  constexpr int32_t far[] = {0, 1, 37, 4095, 1 << 20, 1 << 26};
  std::vector<int32_t> p(static_cast<size_t>(tokens));
  for (size_t t = 0; t < p.size(); ++t) p[t] = far[t % std::size(far)] - static_cast<int32_t>(t / 6);
  return p;
}

TEST(CudaRope, Turns) {
  for (const Shape& s : kShapes)
    for (bool inverse : {false, true})
      check_cuda([&]<class T>(Case<T>& c) {
        const int64_t cols = int64_t{s.heads} * s.head_dim;
        const auto x = c.in("x", s.tokens, cols, s.pad);
        return Rope<T>{.tokens = s.tokens,
                       .heads = s.heads,
                       .head_dim = s.head_dim,
                       .rotary = s.rotary,
                       .theta = s.theta,
                       .positions = c.ints(positions(s.tokens)),
                       .inverse = inverse,
                       .x = x,
                       .y = c.out("y", s.tokens, cols)};
      });
}

TEST(CudaRope, InPlace) {
  for (const Shape& s : kShapes)
    check_cuda([&]<class T>(Case<T>& c) {
      const int64_t cols = int64_t{s.heads} * s.head_dim;
      const auto x = c.inout("x", s.tokens, cols, s.pad);
      return Rope<T>{.tokens = s.tokens,
                     .heads = s.heads,
                     .head_dim = s.head_dim,
                     .rotary = s.rotary,
                     .theta = s.theta,
                     .positions = c.ints(positions(s.tokens)),
                     .x = x,
                     .y = x};
    });
}

}  // namespace
}  // namespace mimo::op_test
