// One sample of a dataset, and how its items become rows.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/image.h"
#include "io/preprocessing.h"
#include "parallel/batch.h"

namespace mimo {

// One sample as it is stored. Items in the order of their places in the text.
struct Sample {
  struct Item {
    int position = 0, modality = 0;
    ItemShape shape;
    std::vector<uint8_t> bytes;       // [channels, time, height, width]
    bool drawable() const;            // grey or in colours, and of two dimensions
    Image image(int time = 0) const;  // one frame
  };
  std::vector<int32_t> tokens;
  std::vector<uint8_t> counted;
  std::vector<Item> items;
  int kind = 0, length = 0;

  void add(int position, int modality, Image image);
};

// The patches of an item of that stored shape, and the rows of the token stream that they fill. Throws
// ConfigError at `place` (the modality's name where it is empty) where patches do not divide it.
ItemSize item_size(const Preprocessing&, const ItemShape& stored, std::string_view place = "");

// Its size, by modality. Throws ConfigError as item_size does.
SampleSizes sizes_of(const Sample&, const std::vector<Preprocessing>&);

}  // namespace mimo
