#include "kernels/selective_scan.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Shape {
  int channels, state;
  std::vector<int> lengths;
  int64_t pad = 8;  // of every operand with rows
  bool gate = true, bias = true, states = true;
  double delta_low = -2, delta_high = 1;
  unsigned frozen = 0;  // 1: the bias, 2: a_log, 4: D

  int sequences() const { return static_cast<int>(lengths.size()); }
  int64_t tokens() const { return cu().back(); }
  std::vector<int32_t> cu() const {
    std::vector<int32_t> v{0};
    for (const int n : lengths) v.push_back(v.back() + n);
    return v;
  }
  std::vector<double> deltas() const {
    std::vector<double> v = random_values(tokens() * channels, 99);  // in (-2, 2)
    for (double& x : v) x = delta_low + (x + 2) / 4 * (delta_high - delta_low);
    return v;
  }
  std::vector<double> biases() const { return random_values(channels, 98); }
};

// Chunks are 256 rows: sequences end within them and reach over three. Blocks have 8 channels, and 64 in
// backward; states come by 16.
const std::vector<Shape> kShapes = [] {
  std::vector<Shape> all = {
      {8, 8, {0, 1, 7, 530, 0, 9}},
      {11, 1, {40, 0, 230, 2}, 1},                      // no vectors, a part of a block
      {72, 1, {30, 0, 5}},                              // two blocks in backward
      {8, 40, {20, 1}},                                 // three loads of states
      {5, 17, {3, 20}, 3, false, false, false},         // and not in vectors
      {8, 2, {100, 100}, 0, false, true, true, 5, 25},  // large steps
      {8, 4, {0, 0}},
      {8, 4, {}},
      {0, 4, {3}},
  };
  for (unsigned frozen = 1; frozen < 8; ++frozen) {
    all.push_back(all[2]);
    all.back().frozen = frozen;
  }
  return all;
}();

// What errors of functions are to the inputs, in units of float's last place:
// - delta = softplus(x) = max(x, 0) + log1p(exp(-|x|)): expf's is one of x; log1pf's, relative to delta, is
// one
//   of 1 + |x| at most.
// - a = 2^(delta A log2 e): expf's in A, and the two roundings of A log2 e, are one of a_log. The exponential
//   itself errs by every step, which A would do if it was off by so much over delta, on average.
// - the gate's: expf's in sigmoid(z) is one of z.
Tolerance tolerance(const Shape& s) {
  std::vector<double> steps(static_cast<size_t>(s.channels), 0);  // the mean delta of each channel
  const std::vector<double> deltas = s.deltas(), biases = s.biases();
  for (size_t i = 0; i < deltas.size(); ++i) {
    const size_t c = i % steps.size();
    steps[c] +=
        std::log1p(std::exp(rounded(deltas[i]) + (s.bias ? biases[c] : 0))) / static_cast<double>(s.tokens());
  }
  return {.inputs = {{"delta",
                      [](double x, int64_t) {
                        return x + (ulps::kExpf + ulps::kLog1pf * (1 + std::fabs(x) + 2)) * ulps::kFloat;
                      }},
                     {"a_log",
                      [=, state = s.state](double x, int64_t i) {
                        const double exponent = steps[static_cast<size_t>(i / state)] * std::exp(x);
                        return x + (ulps::kExpf + 1 + ulps::kEx2 / exponent) * ulps::kFloat;
                      }},
                     {"z", [](double x, int64_t) { return x + ulps::kExpf * ulps::kFloat; }}}};
}

template <class T>
SelectiveScanInputs<T> inputs(Case<T>& m, const Shape& s) {
  const int64_t t = s.tokens(), C = s.channels, N = s.state;
  return {.sequences = s.sequences(),
          .cu = m.ints(s.cu()),
          .tokens = t,
          .channels = s.channels,
          .state = s.state,
          .u = m.in("u", t, C, s.pad),
          .delta = m.in("delta", t, C, s.pad, s.deltas()),
          .b = m.in("b", t, N, s.pad),
          .c = m.in("c", t, N, s.pad),
          .z = s.gate ? m.in("z", t, C, s.pad) : nullptr,
          .delta_bias = s.bias ? m.acc_in("delta_bias", C, 1, s.biases()) : nullptr,
          .a_log = m.acc_in("a_log", C, N),
          .d = m.acc_in("d", C),
          .state_in = s.states ? m.acc_in("state_in", s.sequences(), C * N) : nullptr};
}

TEST(CudaSelectiveScan, Forward) {
  for (const Shape& s : kShapes)
    check_cuda(
        [&]<class T>(Case<T>& m) {
          const SelectiveScanInputs<T> in = inputs(m, s);
          return SelectiveScan<T>{
              .in = in,
              .y = m.out("y", in.tokens, s.channels, s.pad),
              .state_out = s.frozen ? nullptr : m.acc_out("state_out", s.sequences(), s.channels * s.state)};
        },
        tolerance(s));
}

TEST(CudaSelectiveScan, Backward) {
  for (const Shape& s : kShapes)
    check_cuda(
        [&]<class T>(Case<T>& m) {
          const SelectiveScanInputs<T> in = inputs(m, s);
          const int64_t t = in.tokens, C = s.channels, N = s.state, S = s.sequences();
          return SelectiveScanBackward<T>{
              .in = in,
              .dy = m.in("dy", t, C, s.pad),
              .dstate_out = s.states ? m.acc_in("dstate_out", S, C * N) : nullptr,
              .du = m.out("du", t, C, s.pad),
              .ddelta = m.out("ddelta", t, C, s.pad),
              .db = m.out("db", t, N, s.pad),
              .dc = m.out("dc", t, N, s.pad),
              .dz = s.gate ? m.out("dz", t, C, s.pad) : nullptr,
              .ddelta_bias = s.bias && !(s.frozen & 1) ? m.sum("ddelta_bias", C) : nullptr,
              .da_log = s.frozen & 2 ? nullptr : m.sum("da_log", C, N),
              .dd = s.frozen & 4 ? nullptr : m.sum("dd", C),
              .dstate_in = s.frozen ? nullptr : m.acc_out("dstate_in", S, C * N)};
        },
        tolerance(s));
}

TEST(CudaSelectiveScan, RefusesBadShapes) {
  SelectiveScan<float> forward{};
  SelectiveScanBackward<float> backward{};
  for (const int state : {0, 129}) {
    forward.in.state = backward.in.state = state;
    EXPECT_THROW(run(cuda_context(), forward), std::invalid_argument);
    EXPECT_THROW(run(cuda_context(), backward), std::invalid_argument);
    EXPECT_THROW(workspace(cuda_context(), backward), std::invalid_argument);
  }
}

}  // namespace
}  // namespace mimo::op_test
