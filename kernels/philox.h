// Counter-based random numbers: Philox4x32-10. Element i of the stream of a name is lane i mod 4 of
// philox(key = seed, counter = (i / 4 as two words, hash of the name as two words)), so a value depends on
// nothing but (seed, name, i). Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011
// (published vectors in the tests).
#pragma once
#include <array>

#include "kernels/kernel.h"

namespace mimo {

using Philox4 = std::array<uint32_t, 4>;
Philox4 philox(Philox4 counter, std::array<uint32_t, 2> key);

enum class Distribution : uint8_t {
  // a + b N(0, 1), Box-Muller on the pairs (w0, w1) and (w2, w3) of a counter's four words:
  // sqrt(-2 ln((w0 + 1/2) / 2^32)) times cos and sin of 2 pi w1 / 2^32. Every value is computed in double
  // (all but inverse_softplus with the same bits on every machine), then rounded to acc_t<T> and that to T:
  // a bf16 parameter is its rounded master.
  normal,
  uniform,           // a + (b - a) u, u in [0, 1) from 32 bits
  constant,          // a
  log_uniform,       // ln(a + (b - a) u): Mamba's A_log
  log_index,         // ln(1 + i mod a), no chance in it: Mamba-1's A_log (S4D-Real)
  inverse_softplus,  // t = exp(ln a + (ln b - ln a) u), t + ln(-expm1(-t)): Mamba's dt_bias
};

template <class T>
struct RandomFill {
  uint64_t seed, name;  // name: its hash
  int64_t first;        // global index of out[0]
  int64_t n;
  Distribution distribution;
  double a, b;
  T* out;
};

MIMO_CONTRACT(RandomFill);

}  // namespace mimo
