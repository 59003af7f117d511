// Cuts packed images of any size into rows of patches.
// Image i: pixels [channels, height, width] starting at pixels + first_pixel[i], a multiple of patch;
// sizes[2i], sizes[2i+1] are its height and width in patches. Patch (py, px), row-major, becomes one row with
// feature index c patch^2 + yy patch + xx. Unpatchify is the inverse permutation (and the backward).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

struct PatchifyInputs {
  int images;
  int64_t rows;                // patches of all images, cu[images]
  const int64_t* first_pixel;  // [images]
  const int32_t* sizes;        // [images, 2]
  const int32_t* cu;           // [images + 1], first patch row of each image
  int channels, patch;
};

template <class T>
struct Patchify {
  PatchifyInputs in;
  const T* pixels;
  T* patches;  // [rows, channels * patch^2]
};

template <class T>
struct Unpatchify {
  PatchifyInputs in;
  const T* patches;
  T* pixels;
};

MIMO_CONTRACT(Patchify);
MIMO_CONTRACT(Unpatchify);

}  // namespace mimo
