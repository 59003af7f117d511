// The launchers of attention's kernels, by number type; attention.cu calls them. The bf16 ones read q, k, v
// and d_o by 16 bytes.
#pragma once
#include <cuda_runtime.h>

#include "kernels/attention.h"

namespace mimo::cuda {

constexpr float kAttentionLog2E = 1.44269504f;

void launch_attention_forward(const Cuda&, const Attention<bf16>&);
void launch_attention_forward(const Cuda&, const Attention<float>&);
// stats_HT: {lse log2(e), delta} of every query; lse infinite where the query sees no key.
void launch_attention_backward(const Cuda&, const AttentionBackward<bf16>&, const float2* stats_HT);
void launch_attention_backward(const Cuda&, const AttentionBackward<float>&, const float2* stats_HT);

}  // namespace mimo::cuda
