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

// One number where all are equal.
template <class T>
std::vector<T> one_or_all(const std::vector<T>& values) {
  if (values.empty() || std::any_of(values.begin(), values.end(), [&](const T& v) { return v != values[0]; }))
    return values;
  return {values[0]};
}

void set_modalities(h5::File& file, const std::vector<Modality>& modalities) {
  std::vector<std::string> names;
  std::vector<int64_t> channels;
  std::vector<double> mean, std;
  for (const Modality& m : modalities) {
    names.push_back(m.name);
    channels.push_back(m.channels);
    for (int c = 0; c < m.channels; ++c) {
      mean.push_back(m.mean.at(m.mean.size() == 1 ? 0 : static_cast<size_t>(c)));
      std.push_back(m.std.at(m.std.size() == 1 ? 0 : static_cast<size_t>(c)));
    }
  }
  if (modalities.empty()) channels = {1}, mean = {0}, std = {1};
  file.set_attribute("modalities", lines(names));
  file.set_attribute("channels", one_or_all(channels));
  file.set_attribute("mean", one_or_all(mean));
  file.set_attribute("std", one_or_all(std));
}

void write_split(h5::Group g, const SplitSource& source, const std::vector<Modality>& modalities) {
  std::vector<int32_t> tokens, items;
  std::vector<uint8_t> counted, pixels, kind, length;
  std::vector<int64_t> token_offsets{0}, item_offsets{0}, pixel_offsets{0};
  bool moving = false;  // some item has more than one frame
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
      const ItemShape& shape = item.shape;
      MIMO_CHECK(shape.channels == modalities.at(static_cast<size_t>(item.modality)).channels &&
                     shape.numel() == static_cast<int64_t>(item.bytes.size()),
                 "an item has the dataset's channels, and bytes of its shape");
      items.insert(items.end(), {item.position, item.modality, shape.time, shape.height, shape.width});
      moving = moving || shape.time != 1;
      pixels.insert(pixels.end(), item.bytes.begin(), item.bytes.end());
      pixel_offsets.push_back(pixel_offsets.back() + static_cast<int64_t>(item.bytes.size()));
    }
    item_offsets.push_back(static_cast<int64_t>(items.size() / 5));
    kind.push_back(static_cast<uint8_t>(s.kind));
    length.push_back(static_cast<uint8_t>(s.length));
    if (static_cast<int64_t>(pixels.size()) >= kChunk) flush();
  }
  flush();
  write_compressed(g, "tokens", tokens);
  write_compressed(g, "counted", counted);
  write_compressed(g, "token_offsets", token_offsets);
  if (!moving) {  // images need no time
    size_t kept = 0;
    for (size_t i = 0; i < items.size(); ++i)
      if (i % 5 != 2) items[kept++] = items[i];
    items.resize(kept);
  }
  write_compressed(g, "items", items, {item_offsets.back(), moving ? 5 : 4});
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
  set_modalities(file, header.modalities);
  file.set_attribute("license", header.license);
  file.set_attribute("kinds", lines(header.kinds));
  file.set_attribute("tokenizer", header.tokenizer);
  file.set_attribute("template", header.prompt.text);
  file.set_attribute("prompt", header.prompt.prompt);
  file.set_attribute("stop", header.prompt.stop);
  file.set_attribute("task", header.task);
  for (const SplitSource& source : splits)
    write_split(file.create_group(source.name), source, header.modalities);
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
