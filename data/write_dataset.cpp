#include "data/write_dataset.h"

#include <algorithm>

#include "io/file.h"

namespace mimo {
namespace {

std::string lines(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += name + "\n";
  return text;
}

constexpr int64_t kChunk = 1 << 18;  // elements compressed together

template <class T>
void write_compressed(h5::Group& g, const std::string& name, const std::vector<T>& values, Dims shape = {}) {
  const int64_t rows = shape.empty() ? static_cast<int64_t>(values.size()) : shape[0];
  g.write(name, values, shape, std::clamp<int64_t>(rows, 1, kChunk), 9);
}

void write_split(h5::Group g, const SplitSource& source, int channels) {
  std::vector<int32_t> tokens, items;
  std::vector<uint8_t> counted, pixels, kind, length;
  std::vector<int64_t> token_offsets{0}, item_offsets{0}, pixel_offsets{0};
  h5::Dataset pixel_data = g.create_dataset("pixels", DType::u8, {0}, kChunk, 9);
  const auto flush = [&] {
    if (!pixels.empty()) pixel_data.append(DType::u8, pixels.data(), static_cast<int64_t>(pixels.size()));
    pixels.clear();
  };
  for (int64_t i = 0; i < source.samples; ++i) {
    const Sample s = source.make(i);
    MIMO_CHECK(s.counted.size() == s.tokens.size(), "one `counted` a token");
    MIMO_CHECK(s.kind >= 0 && s.kind < 256 && s.length >= 0 && s.length < 256, "kind and length are bytes");
    tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
    counted.insert(counted.end(), s.counted.begin(), s.counted.end());
    token_offsets.push_back(static_cast<int64_t>(tokens.size()));
    for (const Sample::Item& item : s.items) {
      const Image& image = item.image;
      MIMO_CHECK(image.channels == channels, "an image has the dataset's channels");
      items.insert(items.end(), {item.position, item.modality, image.height, image.width});
      pixels.insert(pixels.end(), image.pixels.begin(), image.pixels.end());
      pixel_offsets.push_back(pixel_offsets.back() + static_cast<int64_t>(image.pixels.size()));
    }
    item_offsets.push_back(static_cast<int64_t>(items.size() / 4));
    kind.push_back(static_cast<uint8_t>(s.kind));
    length.push_back(static_cast<uint8_t>(s.length));
    if (static_cast<int64_t>(pixels.size()) >= kChunk) flush();
  }
  flush();
  write_compressed(g, "tokens", tokens);
  write_compressed(g, "counted", counted);
  write_compressed(g, "token_offsets", token_offsets);
  write_compressed(g, "items", items, {item_offsets.back(), 4});
  write_compressed(g, "item_offsets", item_offsets);
  write_compressed(g, "pixel_offsets", pixel_offsets);
  write_compressed(g, "kind", kind);
  write_compressed(g, "length", length);
  g.set_attribute("samples", source.samples);
  g.set_attribute("headline", source.headline);
}

void write_file(const std::filesystem::path& path, const DatasetHeader& header,
                const std::vector<SplitSource>& splits) {
  h5::File file = h5::File::create(path);
  file.set_attribute("format", kDatasetFormat);
  file.set_attribute("version", kDatasetVersion);
  file.set_attribute("vocab", header.vocab);
  file.set_attribute("channels", int64_t{header.channels});
  file.set_attribute("mean", std::vector<double>{header.mean});
  file.set_attribute("std", std::vector<double>{header.std});
  file.set_attribute("license", header.license);
  file.set_attribute("modalities", lines(header.modalities));
  file.set_attribute("kinds", lines(header.kinds));
  for (const SplitSource& source : splits)
    write_split(file.create_group(source.name), source, header.channels);
  file.close();
}

}  // namespace

void write_dataset(const std::filesystem::path& path, const DatasetHeader& header,
                   const std::vector<SplitSource>& splits) {
  require_file(path);
  const std::filesystem::path part = path.string() + ".tmp";
  try {
    write_file(part, header, splits);
    sync_to_disk(part);
    std::filesystem::rename(part, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(part, ignored);
    throw;
  }
}

}  // namespace mimo
