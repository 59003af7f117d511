// Pixels as they are stored, a byte each: x = byte / 255. Images, and videos frame by frame.
#include <algorithm>
#include <array>
#include <cmath>

#include "data/decoder.h"
#include "data/image.h"
#include "tensor/error.h"

namespace mimo {
namespace {

// x rounded to a multiple of `unit`, at least one of it; halves go up.
int rounded(int x, int unit) { return std::max(1, (x + unit / 2) / unit) * unit; }

ItemShape shape(const ItemShape& stored, const Preprocessing& p) {
  ItemShape s = stored;
  if (p.resize == Resize::round) s.height = rounded(s.height, p.side()), s.width = rounded(s.width, p.side());
  return s;
}

void decode(std::span<const uint8_t> bytes, const ItemShape& stored, const Preprocessing& p, float* out) {
  const ItemShape to = shape(stored, p);
  std::vector<uint8_t> resized;
  if (!(to == stored)) {
    const size_t plane = static_cast<size_t>(stored.height) * static_cast<size_t>(stored.width);
    for (size_t begin = 0; begin < bytes.size(); begin += plane) {
      const auto from = bytes.subspan(begin, plane);
      const Image frame =
          resize({1, stored.height, stored.width, {from.begin(), from.end()}}, to.height, to.width);
      resized.insert(resized.end(), frame.pixels.begin(), frame.pixels.end());
    }
    bytes = resized;
  }
  const size_t plane = bytes.size() / static_cast<size_t>(to.channels);
  for (int c = 0; c < to.channels; ++c) {
    const double mean = p.mean.at(p.mean.size() == 1 ? 0 : static_cast<size_t>(c)),
                 std = p.std.at(p.std.size() == 1 ? 0 : static_cast<size_t>(c));
    std::array<float, 256> normalised;
    for (int x = 0; x < 256; ++x)
      normalised[static_cast<size_t>(x)] = static_cast<float>((x / 255.0 - mean) / std);
    for (uint8_t x : bytes.subspan(static_cast<size_t>(c) * plane, plane)) *out++ = normalised[x];
  }
}

const Registry<Decoder>::Entry entry{
    {.name = "pixels", .help = "bytes of 0 to 255, images and videos", .shape = shape, .decode = decode}};

}  // namespace
}  // namespace mimo
