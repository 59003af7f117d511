// Loads and stores of 16 bytes. A file that uses them keeps a path for rows that do not start on 16-byte
// boundaries, chosen on the host by `aligned`.
#pragma once
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx/convert.cuh"

namespace mimo::cuda {

template <class T>
constexpr int kVector = 16 / sizeof(T);  // elements in 16 bytes

// Whether rows of stride ld from p all start on 16-byte boundaries. A null p does.
template <class T>
bool aligned(const T* p, int64_t ld) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && ld * static_cast<int64_t>(sizeof(T)) % 16 == 0;
}

template <class T>
bool aligned(const Rows<T>& x) {
  return aligned(x.data, x.ld);
}

// The elements of 16 bytes of T, as floats.
template <class T>
__device__ inline void unpack(float (&x)[kVector<T>], const uint4& v) {
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      x[i] = __uint_as_float(words[i]);
    } else {
      x[2 * i] = low_bf16(words[i]);
      x[2 * i + 1] = high_bf16(words[i]);
    }
  }
}

// N elements of T, as floats: 1 by a scalar access, 4 or 8 by accesses of 16 bytes (8 where N * sizeof(T) is
// 8).
template <int N, class T>
__device__ inline void load(float (&x)[N], const T* p) {
  if constexpr (N == 1) {
    x[0] = static_cast<float>(*p);
  } else if constexpr (sizeof(T) == 4) {
    static_assert(N == 4 || N == 8);
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(p + i);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
  } else if constexpr (N == 4) {
    const uint2 v = *reinterpret_cast<const uint2*>(p);
    x[0] = low_bf16(v.x), x[1] = high_bf16(v.x), x[2] = low_bf16(v.y), x[3] = high_bf16(v.y);
  } else {
    static_assert(N == 8);
    unpack<T>(x, *reinterpret_cast<const uint4*>(p));
  }
}
template <int N, class T>
__device__ inline void store(T* p, const float (&x)[N]) {
  if constexpr (N == 1) {
    *p = to_type<T>(x[0]);
  } else if constexpr (sizeof(T) == 4) {
    static_assert(N == 4 || N == 8);
#pragma unroll
    for (int i = 0; i < N; i += 4)
      *reinterpret_cast<float4*>(p + i) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
  } else if constexpr (N == 4) {
    *reinterpret_cast<uint2*>(p) = make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]));
  } else {
    static_assert(N == 8);
    *reinterpret_cast<uint4*>(p) = make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]),
                                              pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
  }
}

}  // namespace mimo::cuda
