// Resizing of images.
#include <algorithm>
#include <cmath>
#include <utility>

#include "data/image.h"
#include "tensor/error.h"

namespace mimo {
namespace {

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

}  // namespace mimo
