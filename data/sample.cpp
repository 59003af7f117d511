#include "data/sample.h"

#include "data/decoder.h"
#include "tensor/error.h"

namespace mimo {

namespace {

constexpr int64_t kMostPatches = 1 << 24;  // of an item: sums of them over a sample cannot overflow

std::string by(int time, int height, int width) {
  return (time > 1 ? std::to_string(time) + " x " : "") + std::to_string(height) + " x " +
         std::to_string(width);
}

}  // namespace

bool Sample::Item::drawable() const {
  return (shape.channels == 1 || shape.channels == 3) && shape.height > 1 && shape.width > 1;
}

Image Sample::Item::image(int time) const {
  Image out{shape.channels, shape.height, shape.width, {}};
  const auto plane = static_cast<std::ptrdiff_t>(shape.height) * shape.width;
  for (int c = 0; c < shape.channels && !bytes.empty(); ++c) {
    const auto begin = bytes.begin() + (static_cast<std::ptrdiff_t>(c) * shape.time + time) * plane;
    out.pixels.insert(out.pixels.end(), begin, begin + plane);
  }
  return out;
}

void Sample::add(int position, int modality, Image image) {
  items.push_back(
      {position, modality, {image.channels, 1, image.height, image.width}, std::move(image.pixels)});
}

ItemSize item_size(const Preprocessing& p, const ItemShape& stored, std::string_view place) {
  if (place.empty()) place = p.modality;
  const ItemShape s = decoder_of(p).shape(stored, p);
  const int side = p.side();
  if (s.channels != p.channels)
    throw ConfigError(place, "expected items of " + std::to_string(p.channels) + " channels, found " +
                                 std::to_string(s.channels));
  if (s.time < 1 || s.time % p.patch_time != 0)
    throw ConfigError(place, "patches do not divide an item: expected a multiple of " +
                                 std::to_string(p.patch_time) + " in time, found " + std::to_string(s.time));
  if (s.height < 1 || s.width < 1 || s.height % side != 0 || s.width % side != 0)
    throw ConfigError(place,
                      "patches do not divide an item: expected height and width to be multiples of " +
                          std::to_string(side) + ", found " + by(1, s.height, s.width),
                      p.hint);
  const int time = s.time / p.patch_time, height = s.height / p.patch, width = s.width / p.patch;
  if (int64_t{height} * width > kMostPatches / time)
    throw ConfigError(place, "too many patches in an item: expected at most " + std::to_string(kMostPatches) +
                                 ", found " + by(time, height, width));
  return {height, width, time * (height / p.merge) * (width / p.merge), time};
}

SampleSizes sizes_of(const Sample& sample, const std::vector<Preprocessing>& modalities) {
  SampleSizes s;
  s.items.resize(modalities.size());
  s.tokens = static_cast<int32_t>(sample.tokens.size()) - 1;  // the last is only a label
  for (size_t t = 1; t < sample.tokens.size(); ++t) s.counted += sample.counted[t] != 0;
  for (const Sample::Item& item : sample.items) {
    const size_t m = static_cast<size_t>(item.modality);
    s.items.at(m).push_back(item_size(modalities.at(m), item.shape));
    s.tokens += s.items[m].back().rows - 1;
  }
  return s;
}

}  // namespace mimo
