// Samples laid end to end, without padding.
//
// The stream of a sample is its tokens but the last, where each item's placeholder is repeated for every row
// that the item fills. A row's label is the token that follows it, where that counts; of an item's rows only
// the last has one.
//
// Positions [T, k] begin at 0 in every sample. k = 1: the row's place in its stream. k = 3 (time, height,
// width), for M-RoPE: text has three equal ones; an item that starts at p has p + its place in its grid of
// rows, and what follows goes on from p + the larger of its height and width. Source: Wang et al., Qwen2-VL,
// 2024 (arXiv 2409.12191), 2.1, where time counts too; here as in transformers (get_rope_index of Qwen3-VL).
#pragma once
#include <vector>

#include "data/dataset.h"
#include "parallel/batch.h"

namespace mimo {

// What a model makes of samples.
struct Packing {
  std::vector<Preprocessing> modalities;
  int position_axes = 1;
  DType dtype = DType::f32;  // of patches
};

// Patches lie in host memory; `wants`, by modality: they are left undefined where it is false. Throws
// ConfigError where patches do not divide an item.
PackedBatch pack(const std::vector<Sample>&, const Packing&, const std::vector<bool>& wants);
PackedBatch pack(const Split&, const Packing&, const std::vector<int64_t>& samples,
                 const std::vector<bool>& wants);

}  // namespace mimo
