// Random affine distortion of small gray images, for composing training data.
#pragma once
#include <vector>

#include "data/random.h"

namespace mimo {

// Amplitudes: each sample draws uniformly from [-a, a] (noise: standard deviation).
struct Augmentation {
  double shift = 0;   // pixels, both axes
  double rotate = 0;  // degrees
  double scale = 0;   // of the natural logarithm, each axis on its own
  double shear = 0;   // x moves by shear * y
  double gain = 0;    // of the logarithm of the ink
  double noise = 0;   // added to the ink
};

// ink: [height, width], 0 paper to 1 full. Bilinear sampling around the centre; outside is paper; clipped to
// [0, 1].
std::vector<double> augment(const std::vector<double>& ink, int height, int width, const Augmentation&,
                            RandomStream&);

}  // namespace mimo
