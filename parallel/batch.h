// What a sample is in size, and what a lane gets of a wave: its samples laid end to end, without padding.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mimo {

// One image, video or clip: its grid of patches and the rows its embeddings fill in the token stream.
struct ItemSize {
  int32_t height = 0, width = 0;  // patches
  int32_t rows = 0;               // of the token stream
  int32_t time = 1;               // patches
  int64_t patches() const { return int64_t{time} * height * width; }
};

struct SampleSizes {
  int32_t tokens = 0;                        // of the stream, item rows included
  int32_t counted = 0;                       // labels that count
  std::vector<std::vector<ItemSize>> items;  // by modality, in the order of the text
};

// The packed items of one modality.
struct PackedItems {
  Tensor patches;  // [P, d] in the compute dtype, rows of all items end to end (undefined on ranks that need
                   // no pixels)
  std::vector<int32_t> cu_items;  // [items + 1], first patch row of each item
  std::vector<int32_t> sizes;     // [items, 3]: time, height, width in patches
  std::vector<int32_t> rows;      // rows of the token stream that the embeddings fill, in item order
};

struct PackedBatch {
  std::vector<int64_t> samples;     // dataset positions, in order
  std::vector<int32_t> tokens;      // [T], the placeholder id at item rows
  int position_axes = 1;            // k
  std::vector<int32_t> positions;   // [T, k], from 0 in every sample; see data/pack.h
  std::vector<int32_t> labels;      // [T], the next token where it counts, else -1
  std::vector<int32_t> cu_seqlens;  // [n + 1]
  int64_t counted = 0;              // labels >= 0
  std::vector<PackedItems> items;   // by modality
};

}  // namespace mimo
