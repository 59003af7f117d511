// Decoders: how the stored bytes of an item become numbers. Each is one file in data/decoders/ that registers
// itself; a kind of module names the one it needs (io/preprocessing.h).
#pragma once
#include <functional>
#include <span>
#include <string>

#include "io/preprocessing.h"
#include "io/registry.h"

namespace mimo {

struct Decoder {
  std::string name, help;
  // The shape of what is decoded, from that of the stored item alone: sizes are known without touching a
  // byte.
  std::function<ItemShape(const ItemShape& stored, const Preprocessing&)> shape;
  // Fills `out` [channels, time, height, width], normalised: out = (x - mean) / std.
  std::function<void(std::span<const uint8_t> bytes, const ItemShape& stored, const Preprocessing&,
                     float* out)>
      decode;
};

// Throws ConfigError where there is none of that name.
const Decoder& decoder_of(const Preprocessing&);

}  // namespace mimo
