// Random affine distortion of small gray images, for composing training data.
#pragma once
#include <vector>

#include "data/random.h"

namespace mimo {

// Amplitudes: every image draws each of its numbers uniformly from [-a, a].
struct Augmentation {
  double shift = 0.7;   // pixels, both axes
  double rotate = 12;   // degrees
  double scale = 0.12;  // of 1, each axis on its own
  double shear = 0.2;   // x moves by shear * y
  double gain = 0.2;    // of 1, the ink
  double noise = 0.04;  // largest standard deviation of what is added to the ink; drawn from [0, noise]
};

// ink: [height, width], 0 paper to 1 full. Pixel (y, x) reads the source at
//   c + R(rotate) [scale_x (x - c_x) + shear (y - c_y), scale_y (y - c_y)] + shift
// by bilinear sampling; outside is paper; the result is clipped to [0, 1].
std::vector<double> augment(const std::vector<double>& ink, int height, int width, const Augmentation&,
                            RandomStream&);

}  // namespace mimo
