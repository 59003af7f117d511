#include "data/sample.h"

#include "tensor/error.h"

namespace mimo {

constexpr int64_t kMostPatches = 1 << 24;  // of an image: sums of them over a sample cannot overflow

ItemSize cut_item(const ItemCut& cut, int height, int width, std::string_view place) {
  const int side = cut.patch * (cut.pixel_shuffle ? 2 : 1);
  if (height < 1 || width < 1 || height % side != 0 || width % side != 0)
    throw ConfigError(place,
                      "patches do not divide an image: expected height and width to be multiples of " +
                          std::to_string(side) + ", found " + std::to_string(height) + " x " +
                          std::to_string(width),
                      "choose another patch size, or turn pixel_shuffle off");
  if (int64_t{height / cut.patch} * (width / cut.patch) > kMostPatches)
    throw ConfigError(
        place, "too many patches in an image: expected at most " + std::to_string(kMostPatches) + ", found " +
                   std::to_string(height / cut.patch) + " x " + std::to_string(width / cut.patch));
  return {height / cut.patch, width / cut.patch, (height / side) * (width / side)};
}

SampleSizes sizes_of(const Sample& sample, const std::vector<ItemCut>& cuts,
                     const std::vector<std::string>& modalities) {
  SampleSizes s;
  s.items.resize(cuts.size());
  s.tokens = static_cast<int32_t>(sample.tokens.size()) - 1;  // the last is only a label
  for (size_t t = 1; t < sample.tokens.size(); ++t) s.counted += sample.counted[t] != 0;
  for (const Sample::Item& item : sample.items) {
    const size_t m = static_cast<size_t>(item.modality);
    s.items.at(m).push_back(cut_item(cuts.at(m), item.image.height, item.image.width, modalities.at(m)));
    s.tokens += s.items[m].back().rows - 1;
  }
  return s;
}

}  // namespace mimo
