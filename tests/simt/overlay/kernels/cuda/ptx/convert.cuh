// The emulator's twin of kernels/cuda/ptx/convert.cuh.
#pragma once
#include "kernels/cuda/launch.cuh"

namespace mimo::cuda {

inline uint32_t pack_bf16(float low, float high) {
  return static_cast<uint32_t>(bf16::from_float(low)) | static_cast<uint32_t>(bf16::from_float(high)) << 16;
}
inline float low_bf16(uint32_t word) { return __uint_as_float(word << 16); }
inline float high_bf16(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }
template <class T>
T to_type(float x) {
  return T(x);
}
// Subnormal arguments and results are zero (.ftz).
inline float exp2_fast(float x) {
  const float y = simt::approximate(
      {8, ulps::kEx2, true}, [](auto v) { return std::exp2(v); }, std::fabs(x) < 0x1p-126f ? 0 : x);
  return y < 0x1p-126f ? 0 : y;
}

}  // namespace mimo::cuda
