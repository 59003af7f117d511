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

// For every one of `out` pixels, the pixels of `in` that it covers and how much of each.
std::vector<std::vector<std::pair<size_t, double>>> cover(int in, int out) {
  std::vector<std::vector<std::pair<size_t, double>>> weights(static_cast<size_t>(out));
  const double scale = static_cast<double>(in) / out;
  for (int o = 0; o < out; ++o)
    for (int i = static_cast<int>(o * scale); i < in && i < (o + 1) * scale; ++i)
      if (const double part = std::min(i + 1.0, (o + 1) * scale) - std::max<double>(i, o * scale); part > 0)
        weights[static_cast<size_t>(o)].emplace_back(static_cast<size_t>(i), part / scale);
  return weights;
}

}  // namespace

ImageRange image_range(const Split& split, int modality, int64_t images) {
  ImageRange r;
  for (int64_t s = 0; s < split.samples() && images > 0; ++s)
    for (const Sample::Item& item : split.read(s).items) {
      if (item.modality != modality || images-- <= 0) continue;
      const int height = item.image.height;
      r.least_height = r.least_height == 0 ? height : std::min(r.least_height, height);
      r.most_height = std::max(r.most_height, height);
      r.darkest = std::min(r.darkest, lightness(item.image));
      r.lightest = std::max(r.lightest, lightness(item.image));
    }
  return r;
}

Image resize(const Image& image, int height, int width) {
  MIMO_CHECK(height > 0 && width > 0 && !image.pixels.empty(), "an image and the size it shall have");
  const auto rows = cover(image.height, height), columns = cover(image.width, width);
  Image out{image.channels, height, width, {}};
  const size_t stride = static_cast<size_t>(image.width);
  for (int c = 0; c < image.channels; ++c) {
    const uint8_t* plane = image.pixels.data() + static_cast<size_t>(c * image.height) * stride;
    for (const auto& row : rows) {
      std::vector<double> line(stride, 0.0);  // the mean of the rows
      for (const auto& [y, part] : row)
        for (size_t x = 0; x < stride; ++x) line[x] += part * plane[y * stride + x];
      for (const auto& column : columns) {
        double sum = 0;
        for (const auto& [x, part] : column) sum += part * line[x];
        out.pixels.push_back(static_cast<uint8_t>(std::clamp(std::lround(sum), 0L, 255L)));
      }
    }
  }
  return out;
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
