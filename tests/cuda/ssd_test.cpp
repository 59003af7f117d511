#include "kernels/ssd.h"

#include <random>

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

constexpr unsigned kAll = 7;  // parameters
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Problem {
  int heads, head_dim, groups, state;
  std::vector<int> lengths;
  bool states = true;
  unsigned frozen = 0;       // 1: dt_bias, 2: a_log, 4: D
  int64_t pad = 8, odd = 3;  // of the rows of x, B, C and their like, and of dt
  double dt_low = -2, dt_high = 1, dt_min = 0, dt_max = kInfinity;

  std::vector<int32_t> cu() const {
    std::vector<int32_t> cu{0};
    for (int n : lengths) cu.push_back(cu.back() + n);
    return cu;
  }
  int64_t tokens() const { return cu().back(); }
  int sequences() const { return static_cast<int>(lengths.size()); }
  int64_t state_rows() const { return int64_t{sequences()} * heads * head_dim; }
  std::vector<double> uniform(int64_t n, double low, double high, unsigned seed) const {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> u(low, high);
    std::vector<double> v(static_cast<size_t>(n));
    for (double& x : v) x = static_cast<double>(static_cast<float>(u(random)));
    return v;
  }
};

template <class T>
SsdInputs<T> inputs(const Problem& q, Case<T>& c) {
  using A = acc_t<T>;
  const int64_t t = q.tokens(), gn = q.groups * q.state;
  return {.sequences = q.sequences(),
          .cu = c.ints(q.cu()),
          .tokens = t,
          .heads = q.heads,
          .head_dim = q.head_dim,
          .groups = q.groups,
          .state = q.state,
          .chunk = 32,
          .x = c.in("x", t, q.heads * q.head_dim, q.pad),
          .b = c.in("b", t, gn, q.pad),
          .c = c.in("c", t, gn, q.pad),
          .dt = c.in("dt", t, q.heads, q.odd, q.uniform(t * q.heads, q.dt_low, q.dt_high, 1)),
          .dt_bias = c.acc_in("dt_bias", q.heads, 1, q.uniform(q.heads, -1, 1, 2)),
          .a_log = c.acc_in("a_log", q.heads, 1, q.uniform(q.heads, -1, 1, 3)),
          .d = c.acc_in("d", q.heads),
          .dt_min = static_cast<A>(q.dt_min),
          .dt_max = static_cast<A>(q.dt_max),
          .state_in = q.states ? c.acc_in("state_in", q.state_rows(), q.state) : nullptr};
}

// On tensor cores the weights exp(s_i - s_j) dt_j C_i . B_j, the weighted x and the states are rounded to
// bf16 before they are multiplied: every term of a sum has at most two such roundings (x goes into a state,
// the state into a product), independent of the other terms', so the sum is as near as if it were rounded
// twice.
//
// Errors of functions, as those of inputs: expf's and log1pf's in softplus(x) are one of x, log1pf's,
// relative to dt, of 1 + |x| at most. Every term has one exponential of its chunk, by which it is off as if x
// or dy were; from chunk to chunk another, which decays.
const Tolerance kTolerance{
    2,
    2,
    true,
    {{"dt", [](double x,
               int64_t) { return x + (ulps::kExpf + ulps::kLog1pf * (1 + std::fabs(x))) * ulps::kFloat; }},
     {"x", [](double x, int64_t) { return x * (1 + 2 * ulps::kExpf * ulps::kFloat); }},
     {"dy", [](double x, int64_t) { return x * (1 + 2 * ulps::kExpf * ulps::kFloat); }}}};

void check_forward(const Problem& q) {
  check_cuda(
      [&]<class T>(Case<T>& c) {
        const SsdInputs<T> in = inputs(q, c);
        return Ssd<T>{.in = in,
                      .y = c.out("y", in.tokens, q.heads * q.head_dim, q.pad),
                      .state_out = q.states ? c.acc_out("state_out", q.state_rows(), q.state) : nullptr};
      },
      kTolerance);
}

void check_backward(const Problem& q) {
  check_cuda(
      [&]<class T>(Case<T>& c) {
        const SsdInputs<T> in = inputs(q, c);
        const int64_t t = in.tokens, hp = q.heads * q.head_dim, gn = q.groups * q.state;
        return SsdBackward<T>{
            .in = in,
            .dy = c.in("dy", t, hp, q.pad),
            .dstate_out = q.states ? c.acc_in("dstate_out", q.state_rows(), q.state) : nullptr,
            .dx = c.out("dx", t, hp, q.pad),
            .db = c.out("db", t, gn, q.pad),
            .dc = c.out("dc", t, gn, q.pad),
            .ddt = c.out("ddt", t, q.heads, q.odd),
            .ddt_bias = q.frozen & 1 ? nullptr : c.sum("ddt_bias", q.heads),
            .da_log = q.frozen & 2 ? nullptr : c.sum("da_log", q.heads),
            .dd = q.frozen & 4 ? nullptr : c.sum("dd", q.heads),
            .dstate_in = q.states ? c.acc_out("dstate_in", q.state_rows(), q.state) : nullptr};
      },
      kTolerance);
}

// The emulator's two SMs want 8 blocks, so a block takes the three heads of a group here.
TEST(CudaSsd, Forward) {
  check_forward({6, 16, 2, 16, {70, 0, 5, 200}});
  check_forward({4, 16, 4, 16, {30, 64}, false});
}
TEST(CudaSsd, Backward) {
  check_backward({6, 16, 2, 16, {70, 0, 5, 200}});
  check_backward({4, 16, 4, 16, {30, 64}, false});
}
TEST(CudaSsd, FrozenParameters) {
  for (unsigned frozen = 1; frozen <= kAll; ++frozen) check_backward({4, 16, 4, 16, {30, 64}, false, frozen});
}
// Every padded head_dim, and three slices of the state.
TEST(CudaSsd, ForwardShapes) {
  check_forward({2, 64, 1, 24, {70}});
  check_forward({2, 80, 1, 16, {70}});
  check_forward({2, 128, 1, 24, {66}});
  check_forward({3, 8, 1, 130, {70}});
}
// Without the parameters: the sum of a head's ddt does not depend on the shape, and over so few heads its
// terms may happen to cancel, and their roundings not.
TEST(CudaSsd, BackwardShapes) {
  check_backward({2, 64, 1, 24, {70}, true, kAll});
  check_backward({2, 80, 1, 16, {70}, true, kAll});
  check_backward({2, 128, 1, 24, {66}, true, kAll});
  check_backward({3, 8, 1, 130, {70}, true, kAll});
}
TEST(CudaSsd, Unaligned) {
  check_forward({4, 12, 2, 20, {33, 65}, true, 0, 3});
  check_backward({4, 12, 2, 20, {33, 65}, true, kAll, 3});
  check_backward({2, 37, 1, 7, {70}, false, 0, 1});
}
TEST(CudaSsd, Empty) {
  for (const std::vector<int>& lengths : {std::vector<int>{}, {0, 0}}) {
    check_forward({2, 16, 1, 16, lengths});
    check_backward({2, 16, 1, 16, lengths});
  }
}
// s down to -1e3 in a chunk; steps of all sizes; clamped steps.
TEST(CudaSsd, ForwardSteps) {
  check_forward({4, 16, 2, 16, {70}, true, 0, 8, 0, 5, 25});
  check_forward({4, 16, 2, 16, {70}, true, 0, 8, 0, -8, 12});
  check_forward({4, 16, 2, 16, {70}, true, 0, 8, 0, -2, 1, 0.4, 0.9});
}
TEST(CudaSsd, BackwardSteps) {
  check_backward({4, 16, 2, 16, {70}, true, 0, 8, 0, 5, 25});
  check_backward({4, 16, 2, 16, {70}, true, 0, 8, 0, -8, 12});
  check_backward({4, 16, 2, 16, {70}, true, 0, 8, 0, -2, 1, 0.4, 0.9});
}

TEST(CudaSsd, RefusesBadShapes) {
  Ssd<float> op{};
  op.in.heads = 4, op.in.groups = 3, op.in.head_dim = op.in.state = op.in.chunk = 8;
  EXPECT_THROW(run(cuda_context(), op), std::invalid_argument);
  op.in.groups = 2, op.in.head_dim = 129;
  EXPECT_THROW(run(cuda_context(), op), std::invalid_argument);
  op.in.head_dim = 8;
  EXPECT_THROW(run(cuda_context(), op), std::invalid_argument);  // no workspace
}

}  // namespace
}  // namespace mimo::op_test
