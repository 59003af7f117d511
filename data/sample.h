// One sample of a dataset, and how the model cuts its items into rows.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/image.h"
#include "parallel/batch.h"

namespace mimo {

// The size of an item of height x width pixels. Throws ConfigError at `place` where patches (2 x 2 of them
// with pixel_shuffle) do not divide it.
ItemSize cut_item(const ItemCut&, int height, int width, std::string_view place);

// One sample as it is stored. Items in the order of their places in the text.
struct Sample {
  struct Item {
    int position = 0, modality = 0;
    Image image;
  };
  std::vector<int32_t> tokens;
  std::vector<uint8_t> counted;
  std::vector<Item> items;
  int kind = 0, length = 0;
};

// Its size when items are cut so, by modality. Throws ConfigError as cut_item does.
SampleSizes sizes_of(const Sample&, const std::vector<ItemCut>&, const std::vector<std::string>& modalities);

}  // namespace mimo
