#include "kernels/causal_conv.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Shape {
  int channels, width;
  std::vector<int> lengths;
  int64_t pad = 0;  // of x and dy
  bool bias = true, states = true;
  unsigned frozen = 0;  // 1: the weight, 2: the bias

  int sequences() const { return static_cast<int>(lengths.size()); }
  int64_t tokens() const { return cu().back(); }
  int64_t states_rows() const { return int64_t{sequences()} * (width - 1); }
  std::vector<int32_t> cu() const {
    std::vector<int32_t> v{0};
    for (const int n : lengths) v.push_back(v.back() + n);
    return v;
  }
};

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (int width = 2; width <= 8; ++width) {
    // Strips are 16 rows here: sequences end within them and reach over three.
    const std::vector<int> lengths{0, 1, 2, 33, 0, width - 1, 50, width};
    all.push_back({16, width, lengths, 8});
    all.push_back({5, width, lengths, 0});
    all.push_back({16, width, {37, 20}, 1, false, false});  // rows do not start on 16 bytes
  }
  all.push_back({2056, 4, {3, 5}});             // several blocks of channels, in vectors
  all.push_back({300, 3, {4, 0, 2}, 0, true});  // and not
  all.push_back({2056, 4, {100, 190}});         // strips of 32 and 64 rows with two multiprocessors
  for (const unsigned frozen : {1, 2, 3}) all.push_back({8, 4, {40}, 0, true, true, frozen});
  all.push_back({8, 4, {0, 0}});
  all.push_back({8, 4, {}});
  all.push_back({0, 4, {3}});
  return all;
}

// The buffers of one sequence's states [width - 1, channels] lie end to end.
template <class T>
CausalConvInputs<T> inputs(Case<T>& c, const Shape& s) {
  const int64_t t = s.tokens(), C = s.channels;
  return {.sequences = s.sequences(),
          .cu = c.ints(s.cu()),
          .tokens = t,
          .channels = s.channels,
          .width = s.width,
          .x = c.in("x", t, C, s.pad),
          .weight = c.in("weight", C, s.width),
          .bias = s.bias ? c.in("bias", 1, C) : nullptr,
          .state_in = s.states ? c.in("state_in", s.states_rows(), C) : nullptr};
}

TEST(CudaCausalConv, Forward) {
  for (const Shape& s : shapes())
    check_cuda([&]<class T>(Case<T>& c) {
      const CausalConvInputs<T> in = inputs(c, s);
      return CausalConv<T>{.in = in,
                           .y = c.out("y", in.tokens, s.channels, 8),
                           .state_out = s.frozen ? nullptr : c.out("state_out", s.states_rows(), s.channels)};
    });
}

// For bf16, of silu'(u) = g + u g (1 - g), g = 1 / (1 + 2^x): a division's error in g arrives there times
// |1 - u|, and is one of dy then; the mean of (1 - u)^2 over eight taps and a bias in (-2, 2) is 17. That of
// 2^x is one of u by as much, and |u| units more come from the rounding of x: one of the taps.
const Tolerance kBf16{
    .inputs = {
        {"dy", [](double x, int64_t) { return x * (1 + std::sqrt(17) * ulps::kFdividef * ulps::kFloat); }},
        {"weight", [](double x, int64_t) { return x * (1 + (ulps::kEx2 + 1) * ulps::kFloat); }}}};
template <class Build>
void check_backward(const Build& build) {
  compare<float>(build);
  compare<bf16>(build, kBf16);
}

TEST(CudaCausalConv, Backward) {
  for (const Shape& s : shapes())
    check_backward([&]<class T>(Case<T>& c) {
      const CausalConvInputs<T> in = inputs(c, s);
      const int64_t t = in.tokens, C = s.channels;
      return CausalConvBackward<T>{.in = in,
                                   .dy = c.in("dy", t, C, s.pad),
                                   .dstate_out = s.states ? c.in("dstate_out", s.states_rows(), C) : nullptr,
                                   .dx = c.out("dx", t, C, 8),
                                   .dweight = s.frozen & 1 ? nullptr : c.sum("dweight", C, s.width),
                                   .dbias = s.frozen & 2 || !s.bias ? nullptr : c.sum("dbias", C),
                                   .dstate_in = s.bias ? c.out("dstate_in", s.states_rows(), C) : nullptr};
    });
}

// States in without a gradient of the states out, and the reverse.
TEST(CudaCausalConv, StatesOneByOne) {
  for (const bool forward : {false, true})
    check_backward([&]<class T>(Case<T>& c) {
      const auto* cu = c.ints({0, 2, 2, 30});
      const auto x = c.in("x", 30, 8), weight = c.in("weight", 8, 4);
      const T* state = c.in("state", 9, 8);
      return CausalConvBackward<T>{.in = {.sequences = 3,
                                          .cu = cu,
                                          .tokens = 30,
                                          .channels = 8,
                                          .width = 4,
                                          .x = x,
                                          .weight = weight,
                                          .state_in = forward ? state : nullptr},
                                   .dy = c.in("dy", 30, 8),
                                   .dstate_out = forward ? nullptr : state,
                                   .dx = c.out("dx", 30, 8),
                                   .dweight = c.sum("dweight", 8, 4),
                                   .dstate_in = c.out("dstate_in", 9, 8)};
    });
}

TEST(CudaCausalConv, RefusesOtherWidths) {
  CausalConv<float> op{};
  for (const int width : {1, 9}) {
    op.in.width = width;
    EXPECT_THROW(run(cuda_context(), op), std::invalid_argument);
  }
}

}  // namespace
}  // namespace mimo::op_test
