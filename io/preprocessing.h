// How the items of a modality become rows of their encoder. A kind of module says it (nn/module.h), data/ carries
// it out (data/decoder.h, data/pack.h); neither knows the other.
//
//   bytes as stored -- decode --> numbers [channels, time, height, width] -- cut --> patches [P, features]
//
// An image has time 1; a clip of sound, height and width 1. A patch is patch_time x patch x patch places, a
// row of channels * patch_time * patch * patch numbers, the channel slowest. Patches of an item follow each
// other along the width, then the height, then the time.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace mimo {

// A modality of a dataset, and what the numbers are like that its decoder makes (pixels: bytes / 255).
struct Modality {
  std::string name;
  int channels = 1;
  std::vector<double> mean{0}, std{1};  // by channel, or one for all
  bool operator==(const Modality&) const = default;
};

// Of an item, as it is stored or as it is once decoded.
struct ItemShape {
  int channels = 1, time = 1, height = 1, width = 1;
  int64_t numel() const { return int64_t{channels} * time * height * width; }
  bool operator==(const ItemShape&) const = default;
};

enum class Resize {
  keep,   // as it is stored: patches have to divide it
  round,  // height and width to the nearest multiple of patch * merge, at least one
};

struct Preprocessing {
  std::string modality = "image";
  std::string decoder = "pixels";  // by name: see data/decoder.h
  Resize resize = Resize::keep;
  int channels = 1;                     // of what is decoded
  std::vector<double> mean{0}, std{1};  // y = (x - mean) / std, by channel or one for all
  int patch_time = 1, patch = 1;
  int merge = 1;  // merge x merge neighbouring patches fill one row of the token stream
  // The patches of a row follow each other, instead of lying in the order of the item.
  bool merged_order = false;
  std::string hint = "choose another patch size";  // where patches do not divide an item

  int side() const { return patch * merge; }
  int64_t features() const { return int64_t{channels} * patch_time * patch * patch; }
  bool operator==(const Preprocessing&) const = default;
};

// Pixels with the statistics of their modality, in square patches.
inline Preprocessing image_patches(const Modality& m, int patch, int merge = 1) {
  Preprocessing p;
  p.modality = m.name;
  p.channels = m.channels;
  p.mean = m.mean;
  p.std = m.std;
  p.patch = patch;
  p.merge = merge;
  return p;
}

}  // namespace mimo
