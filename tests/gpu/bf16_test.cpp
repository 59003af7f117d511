// Our bf16 against CUDA's own, whose conversions also run on the host: kernels use CUDA's instructions, the
// host and the CPU kernels use ours.
#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "kernels/kernel.h"

namespace mimo {
namespace {

uint16_t cuda_bits(float x) { return std::bit_cast<uint16_t>(__float2bfloat16_rn(x)); }

TEST(Bf16, EveryPatternReadsAsCudas) {
  for (uint32_t i = 0; i < 0x10000; ++i) {
    bf16 ours;
    ours.bits = static_cast<uint16_t>(i);
    const float theirs = __bfloat162float(std::bit_cast<__nv_bfloat16>(static_cast<uint16_t>(i)));
    ASSERT_EQ(std::bit_cast<uint32_t>(static_cast<float>(ours)), std::bit_cast<uint32_t>(theirs)) << i;
  }
}

// Every pattern, the middle between it and the next, and one step to either side.
TEST(Bf16, RoundsAsCudaDoes) {
  for (uint32_t high = 0; high < 0x10000; ++high)
    for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const auto x = std::bit_cast<float>(high << 16 | low);
      if (std::isnan(x)) {  // CUDA has one NaN, we keep the sign and the payload's head
        ASSERT_TRUE(std::isnan(static_cast<float>(bf16(x))));
        ASSERT_TRUE(std::isnan(__bfloat162float(__float2bfloat16_rn(x))));
      } else {
        ASSERT_EQ(bf16(x).bits, cuda_bits(x)) << std::hex << (high << 16 | low);
      }
    }
}

}  // namespace
}  // namespace mimo
