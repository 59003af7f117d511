#include "data/fit.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mimo {
namespace {

double lightness(const Image& image) {
  return std::accumulate(image.pixels.begin(), image.pixels.end(), 0.0) /
         static_cast<double>(image.pixels.size());
}

}  // namespace

ImageRange image_range(const Split& split, int modality, int64_t images) {
  ImageRange r;
  for (int64_t s = 0; s < split.samples() && images > 0; ++s)
    for (const Sample::Item& item : split.read(s).items) {
      if (item.modality != modality || images-- <= 0) continue;
      const int height = item.shape.height;
      r.least_height = r.least_height == 0 ? height : std::min(r.least_height, height);
      r.most_height = std::max(r.most_height, height);
      r.darkest = std::min(r.darkest, lightness(item.image()));
      r.lightest = std::max(r.lightest, lightness(item.image()));
    }
  return r;
}

Image fit(Image image, const ImageRange& r, int side, std::string& done) {
  if (r.most_height == 0) return image;
  const int height = std::clamp(image.height, r.least_height, r.most_height);
  if (height != image.height) {
    // What comes out far wider than any model reads is refused for its length.
    const double width = std::min(static_cast<double>(image.width) * height / image.height, 0x1p20);
    const int sides = std::max(1, static_cast<int>(std::lround(width / side)));
    done = "scaled from " + std::to_string(image.height) + " x " + std::to_string(image.width) + " to " +
           std::to_string(height) + " x " + std::to_string(sides * side);
    image = resize(image, height, sides * side);
  }
  const auto outside = [&](double light) { return std::max({0.0, r.darkest - light, light - r.lightest}); };
  if (const double light = lightness(image); 4 * outside(255 - light) < outside(light)) {
    for (uint8_t& x : image.pixels) x = static_cast<uint8_t>(255 - x);
    done += std::string(done.empty() ? "" : ", ") + "turned to its negative";
  }
  return image;
}

}  // namespace mimo
