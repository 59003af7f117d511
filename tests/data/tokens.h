// The tokens of the digits.
#pragma once
#include "data/digits.h"

namespace mimo {

inline constexpr int32_t kBegin = 256, kEnd = 257, kImage = 258;
inline constexpr int64_t kVocab = 259;

inline Preprocessing cut_images(int patch, int merge = 1, const Modality& m = {.name = "image"}) {
  return image_patches(m, patch, merge);
}

}  // namespace mimo
