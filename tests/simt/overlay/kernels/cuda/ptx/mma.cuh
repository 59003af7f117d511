// The emulator's twin of kernels/cuda/ptx/mma.cuh: a warp meets, and one lane computes by the PTX ISA's
// tables.
#pragma once
#include "kernels/cuda/ptx/convert.cuh"

namespace mimo::cuda {

struct SimtMma {
  float* d;
  const uint32_t *a, *b;
};

inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     const SimtPlace& at = SimtPlace::current()) {
  SimtMma mine{d, a, b};
  simt::meet_warp(
      "mma", &mine,
      [](void* const* lanes) {
        float A[16][16], B[16][8];
        for (int l = 0; l < 32; ++l) {
          const auto* s = static_cast<const SimtMma*>(lanes[l]);
          const int g = l / 4, t = l % 4;
          for (int i = 0; i < 4; ++i) {
            float* at_a = &A[g + i % 2 * 8][2 * t + i / 2 * 8];
            at_a[0] = low_bf16(s->a[i]), at_a[1] = high_bf16(s->a[i]);
          }
          for (int i = 0; i < 2; ++i)
            B[2 * t + 8 * i][g] = low_bf16(s->b[i]), B[2 * t + 8 * i + 1][g] = high_bf16(s->b[i]);
        }
        float D[16][8] = {};
        for (int m = 0; m < 16; ++m)
          for (int k = 0; k < 16; ++k)
            for (int n = 0; n < 8; ++n) D[m][n] += A[m][k] * B[k][n];
        for (int l = 0; l < 32; ++l) {
          float* out = static_cast<const SimtMma*>(lanes[l])->d;
          const int g = l / 4, t = l % 4;
          for (int i = 0; i < 4; ++i) out[i] += D[g + i / 2 * 8][2 * t + i % 2];
        }
      },
      at);
}

struct SimtLdmatrix {
  uint32_t* r;
  const void* row;
};

template <bool Transposed>
void simt_ldmatrix(uint32_t (&r)[4], const void* row, const SimtPlace& at) {
  simt::check_aligned(row, 16, "a row of ldmatrix");
  SimtLdmatrix mine{r, row};
  simt::meet_warp(
      "ldmatrix", &mine,
      [](void* const* lanes) {
        for (int i = 0; i < 4; ++i) {
          uint16_t matrix[8][8];
          for (int j = 0; j < 8; ++j)
            std::memcpy(matrix[j], static_cast<const SimtLdmatrix*>(lanes[8 * i + j])->row, 16);
          for (int l = 0; l < 32; ++l) {
            const int g = l / 4, t = l % 4;
            const uint32_t low = Transposed ? matrix[2 * t][g] : matrix[g][2 * t];
            const uint32_t high = Transposed ? matrix[2 * t + 1][g] : matrix[g][2 * t + 1];
            static_cast<const SimtLdmatrix*>(lanes[l])->r[i] = low | high << 16;
          }
        }
      },
      at);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, const SimtPlace& at = SimtPlace::current()) {
  simt_ldmatrix<false>(r, row, at);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, const SimtPlace& at = SimtPlace::current()) {
  simt_ldmatrix<true>(r, row, at);
}

}  // namespace mimo::cuda
