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
Ssd<T> forward(const Problem& q, Case<T>& c) {
  using A = acc_t<T>;
  const int64_t t = q.tokens(), hp = q.heads * q.head_dim, gn = q.groups * q.state;
  Ssd<T> op{};
  op.sequences = q.sequences(), op.cu = c.ints(q.cu()), op.tokens = t;
  op.heads = q.heads, op.head_dim = q.head_dim, op.groups = q.groups, op.state = q.state, op.chunk = 32;
  op.x = c.in("x", t, hp, q.pad), op.x_ld = hp + q.pad;
  op.b = c.in("b", t, gn, q.pad), op.b_ld = gn + q.pad;
  op.c = c.in("c", t, gn, q.pad), op.c_ld = gn + q.pad;
  op.dt = c.in("dt", t, q.heads, q.odd, q.uniform(t * q.heads, q.dt_low, q.dt_high, 1));
  op.dt_ld = q.heads + q.odd;
  op.dt_bias = c.acc_in("dt_bias", q.heads, 1, q.uniform(q.heads, -1, 1, 2));
  op.a_log = c.acc_in("a_log", q.heads, 1, q.uniform(q.heads, -1, 1, 3));
  op.d = c.acc_in("d", q.heads);
  op.dt_min = static_cast<A>(q.dt_min), op.dt_max = static_cast<A>(q.dt_max);
  if (q.states) op.state_in = c.acc_in("state_in", q.state_rows(), q.state);
  op.y = c.out("y", t, hp, q.pad), op.y_ld = hp + q.pad;
  if (q.states) op.state_out = c.acc_out("state_out", q.state_rows(), q.state);
  return op;
}

template <class T>
SsdBackward<T> backward(const Problem& q, Case<T>& c) {
  const Ssd<T> f = forward<T>(q, c);
  const int64_t t = q.tokens(), hp = q.heads * q.head_dim, gn = q.groups * q.state;
  SsdBackward<T> op{};
  op.sequences = f.sequences, op.cu = f.cu, op.tokens = t;
  op.heads = f.heads, op.head_dim = f.head_dim, op.groups = f.groups, op.state = f.state, op.chunk = f.chunk;
  op.x = f.x, op.x_ld = f.x_ld, op.b = f.b, op.b_ld = f.b_ld, op.c = f.c, op.c_ld = f.c_ld;
  op.dt = f.dt, op.dt_ld = f.dt_ld, op.dt_bias = f.dt_bias, op.a_log = f.a_log, op.d = f.d;
  op.dt_min = f.dt_min, op.dt_max = f.dt_max, op.state_in = f.state_in;
  op.dy = c.in("dy", t, hp, q.pad), op.dy_ld = hp + q.pad;
  if (q.states) op.dstate_out = c.acc_in("dstate_out", q.state_rows(), q.state);
  op.dx = c.out("dx", t, hp, q.pad), op.dx_ld = hp + q.pad;
  op.db = c.out("db", t, gn, q.pad), op.db_ld = gn + q.pad;
  op.dc = c.out("dc", t, gn, q.pad), op.dc_ld = gn + q.pad;
  op.ddt = c.out("ddt", t, q.heads, q.odd), op.ddt_ld = q.heads + q.odd;
  if (!(q.frozen & 1)) op.ddt_bias = c.sum("ddt_bias", q.heads);
  if (!(q.frozen & 2)) op.da_log = c.sum("da_log", q.heads);
  if (!(q.frozen & 4)) op.dd = c.sum("dd", q.heads);
  if (q.states) op.dstate_in = c.acc_out("dstate_in", q.state_rows(), q.state);
  return op;
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
  check_cuda([&]<class T>(Case<T>& c) { return forward<T>(q, c); }, kTolerance);
}

// y and state_out of `forward` stay NaN on both sides.
void check_backward(const Problem& q) {
  check_cuda([&]<class T>(Case<T>& c) { return backward<T>(q, c); }, kTolerance);
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
  op.heads = 4, op.groups = 3, op.head_dim = op.state = op.chunk = 8;
  EXPECT_THROW(run(cuda_context(), op), std::invalid_argument);
  op.groups = 2, op.head_dim = 129;
  EXPECT_THROW(run(cuda_context(), op), std::invalid_argument);
  op.head_dim = 8;
  EXPECT_THROW(run(cuda_context(), op), std::invalid_argument);  // no workspace
}

}  // namespace
}  // namespace mimo::op_test
