// Causal depthwise convolution and SiLU over packed sequences:
//   u_t = bias + sum_{k < width} weight[c, k] x_{t - (width - 1) + k},   y_t = u_t sigmoid(u_t)
// Taps before the start of a sequence read state_in (its last width - 1 inputs, oldest first) or 0.
// Backward recomputes u: du = dy silu'(u), dx_t = sum_k weight[:, k] du_{t + (width - 1) - k} inside the
// sequence.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct CausalConv {
  int sequences;
  const int32_t* cu;
  int64_t tokens;
  int channels, width;  // width 2 to 8
  const T* x;           // [tokens, channels]
  int64_t x_ld;
  const T* weight;    // [channels, width], k = 0 the oldest tap
  const T* bias;      // [channels] or null
  const T* state_in;  // [sequences, width - 1, channels] or null
  T* y;
  int64_t y_ld;
  T* state_out;  // like state_in, or null: the last width - 1 inputs, with state_in before them
};

template <class T>
struct CausalConvBackward {
  int sequences;
  const int32_t* cu;
  int64_t tokens;
  int channels, width;
  const T* x;
  int64_t x_ld;
  const T *weight, *bias, *state_in;
  const T* dy;
  int64_t dy_ld;
  const T* dstate_out;  // or null
  T* dx;
  int64_t dx_ld;
  acc_t<T>*dweight, *dbias;  // added to; each null where frozen, dbias also where bias is
  T* dstate_in;              // or null, overwritten
};

// f.template operator()<width>(); throws for a width outside 2 to 8.
template <class F>
void with_conv_width(int width, F&& f) {
  switch (width) {
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    case 4:
      return f.template operator()<4>();
    case 5:
      return f.template operator()<5>();
    case 6:
      return f.template operator()<6>();
    case 7:
      return f.template operator()<7>();
    case 8:
      return f.template operator()<8>();
  }
  throw std::invalid_argument("causal_conv: width: expected 2 to 8, found " + std::to_string(width));
}

MIMO_CONTRACT(CausalConv);
MIMO_CONTRACT(CausalConvBackward);
template <class T>
int64_t workspace(const Cpu&, const CausalConvBackward<T>&);

}  // namespace mimo
