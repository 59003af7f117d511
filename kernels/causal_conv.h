// Causal depthwise convolution and SiLU over packed sequences:
//   u_t = bias + sum_{k < width} weight[c, k] x_{t - (width - 1) + k},   y_t = u_t sigmoid(u_t)
// Taps before the start of a sequence read state_in (its last width - 1 inputs, oldest first) or 0.
// Backward recomputes u: du = dy silu'(u), dx_t = sum_k weight[:, k] du_{t + (width - 1) - k} inside the
// sequence.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct CausalConvInputs {
  int sequences;
  const int32_t* cu;
  int64_t tokens;
  int channels, width;          // width 2 to 8
  Rows<const T> x;              // [tokens, channels]
  const T* weight;              // [channels, width], k = 0 the oldest tap
  const T* bias = nullptr;      // [channels]
  const T* state_in = nullptr;  // [sequences, width - 1, channels]
};

template <class T>
struct CausalConv {
  CausalConvInputs<T> in;
  Rows<T> y;
  T* state_out = nullptr;  // like state_in: the last width - 1 inputs, with state_in before them
};

template <class T>
struct CausalConvBackward {
  CausalConvInputs<T> in;
  Rows<const T> dy;
  const T* dstate_out = nullptr;
  Rows<T> dx;
  acc_t<T>*dweight = nullptr, *dbias = nullptr;  // added to; each null where frozen, dbias also where bias is
  T* dstate_in = nullptr;                        // overwritten
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
