#include "data/augment.h"

#include <algorithm>
#include <cmath>

namespace mimo {

std::vector<double> augment(const std::vector<double>& ink, int height, int width, const Augmentation& a,
                            RandomStream& random) {
  const auto draw = [&](double amplitude) { return random.uniform(-amplitude, amplitude); };
  const double angle = draw(a.rotate) * std::numbers::pi / 180, shear = draw(a.shear);
  const double sx = 1 + draw(a.scale), sy = 1 + draw(a.scale), tx = draw(a.shift), ty = draw(a.shift);
  const double gain = 1 + draw(a.gain), noise = a.noise * random.uniform();
  const double cx = 0.5 * (width - 1), cy = 0.5 * (height - 1), c = std::cos(angle), s = std::sin(angle);
  const auto at = [&](int y, int x) {
    return y < 0 || x < 0 || y >= height || x >= width ? 0.0 : ink[static_cast<size_t>(y * width + x)];
  };

  std::vector<double> out(ink.size());
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const double u = sx * (x - cx) + shear * (y - cy), v = sy * (y - cy);
      const double px = c * u - s * v + tx + cx, py = s * u + c * v + ty + cy;
      const double fx = std::floor(px), fy = std::floor(py), wx = px - fx, wy = py - fy;
      const int x0 = static_cast<int>(fx), y0 = static_cast<int>(fy);
      const double value = (1 - wy) * ((1 - wx) * at(y0, x0) + wx * at(y0, x0 + 1)) +
                           wy * ((1 - wx) * at(y0 + 1, x0) + wx * at(y0 + 1, x0 + 1));
      out[static_cast<size_t>(y * width + x)] = std::clamp(gain * value + noise * random.normal(), 0.0, 1.0);
    }
  return out;
}

}  // namespace mimo
