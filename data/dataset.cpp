#include "data/dataset.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace mimo {
namespace {

constexpr const char* kFormat = "mimo-dataset";
constexpr int64_t kVersion = 1;
constexpr int64_t kInMemory = int64_t{256} << 20;  // bytes of an array that are simply kept

}  // namespace

FlatArray::FlatArray(const h5::Dataset& d, const std::filesystem::path& file)
    : count_(numel(d.shape())), element_(size_of(d.dtype())) {
  const std::optional<int64_t> offset = d.file_offset();
  if (!offset || count_ * element_ <= kInMemory) {
    memory_.resize(static_cast<size_t>(count_ * element_));
    if (count_ > 0) d.read(Box{{0}, d.shape()}, d.dtype(), memory_.data());
    return;
  }
  offset_ = *offset;
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw ConfigError(file.string(), std::string("cannot open: ") + std::strerror(errno));
  descriptor_ = std::shared_ptr<int>(new int(fd), [](int* p) {
    ::close(*p);
    delete p;
  });
}

void FlatArray::read(int64_t begin, int64_t count, void* out) const {
  MIMO_CHECK(begin >= 0 && count >= 0 && begin + count <= count_, "range outside a flat array");
  if (!descriptor_) {
    if (count > 0) std::memcpy(out, memory_.data() + begin * element_, static_cast<size_t>(count * element_));
    return;
  }
  char* to = static_cast<char*>(out);
  for (int64_t done = 0, bytes = count * element_; done < bytes;) {
    const ssize_t n = ::pread(*descriptor_, to + done, static_cast<size_t>(bytes - done),
                              offset_ + begin * element_ + done);
    if (n <= 0)
      throw std::runtime_error("cannot read the dataset: " +
                               std::string(n < 0 ? std::strerror(errno) : "end of file"));
    done += n;
  }
}

Split::Split(const h5::File& file, const std::filesystem::path& path, const std::string& name,
             const DatasetHeader& header)
    : place_(path.string() + ":/" + name), channels_(header.channels) {
  const h5::Group g = file.group(name);
  const int64_t n = g.integer_attribute("samples");
  max_tokens_ = g.integer_attribute("max_tokens");
  max_pixels_ = g.integer_attribute("max_pixels");
  headline_ = g.integer_attribute("headline");
  token_offsets_ = g.read<int64_t>("token_offsets");
  item_offsets_ = g.read<int64_t>("item_offsets");
  pixel_offsets_ = g.read<int64_t>("pixel_offsets");
  items_ = g.read<int32_t>("items");
  kind_ = g.read<uint8_t>("kind");
  length_ = g.read<uint8_t>("length");
  tokens_ = FlatArray(g.dataset("tokens"), path);
  counted_ = FlatArray(g.dataset("counted"), path);
  pixels_ = FlatArray(g.dataset("pixels"), path);
  if (static_cast<int64_t>(kind_.size()) != n)
    refuse("kind", "expected " + std::to_string(n) + " samples, found " + std::to_string(kind_.size()));
  check(header);
  std::vector<uint8_t> counted(static_cast<size_t>(counted_.size()));
  counted_.read(0, counted_.size(), counted.data());
  counted_sum_.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t t = token_offsets_[i] + 1; t < token_offsets_[i + 1]; ++t)
      counted_sum_[i] += counted[t] != 0;
}

void Split::refuse(const std::string& array, const std::string& what) const {
  throw ConfigError(place_ + "/" + array, "the dataset is inconsistent: " + what,
                    "write the file again with mimo-data");
}

void Split::check(const DatasetHeader& header) const {
  const auto offsets = [&](const char* name, const std::vector<int64_t>& o, size_t rows, int64_t end) {
    if (o.size() != rows + 1 || o.front() != 0 || o.back() != end || !std::is_sorted(o.begin(), o.end()))
      refuse(name, "expected " + std::to_string(rows + 1) + " rising offsets from 0 to " +
                       std::to_string(end) + ", found " + std::to_string(o.size()) +
                       (o.empty() ? "" : " to " + std::to_string(o.back())));
  };
  const size_t item_count = items_.size() / 4;
  offsets("token_offsets", token_offsets_, kind_.size(), tokens_.size());
  offsets("item_offsets", item_offsets_, kind_.size(), static_cast<int64_t>(item_count));
  offsets("pixel_offsets", pixel_offsets_, item_count, pixels_.size());
  if (counted_.size() != tokens_.size()) refuse("counted", "expected one entry a token");
  if (length_.size() != kind_.size()) refuse("length", "expected one entry a sample");
  for (size_t s = 0; s < kind_.size(); ++s) {
    if (kind_[s] >= header.kinds.size())
      refuse("kind", "sample " + std::to_string(s) + " is of an unknown kind");
    int32_t last = -1;
    for (int64_t i = item_offsets_[s]; i < item_offsets_[s + 1]; ++i) {
      const int32_t* it = &items_[static_cast<size_t>(i) * 4];
      const bool fits = it[0] > last && it[0] < token_offsets_[s + 1] - token_offsets_[s] && it[1] >= 0 &&
                        it[1] < static_cast<int32_t>(header.modalities.size()) && it[2] > 0 && it[3] > 0 &&
                        pixel_offsets_[i + 1] - pixel_offsets_[i] == int64_t{channels_} * it[2] * it[3];
      if (!fits)
        refuse("items", "item " + std::to_string(i) + " of sample " + std::to_string(s) +
                            " has a bad place, modality or size");
      last = it[0];
    }
  }
}

void Split::set_cuts(const std::vector<ItemCut>& cuts, int64_t seq_length) {
  cuts_ = cuts;
  for (size_t i = 0; i < items_.size(); i += 4) {
    const ItemCut& cut = cuts_.at(items_[i + 1]);
    const int side = cut.patch * (cut.pixel_shuffle ? 2 : 1);
    if (items_[i + 2] % side != 0 || items_[i + 3] % side != 0)
      throw ConfigError(place_ + "/items",
                        "patches do not divide an image: expected height and width to be multiples of " +
                            std::to_string(side) + ", found " + std::to_string(items_[i + 2]) + " x " +
                            std::to_string(items_[i + 3]),
                        "choose another patch size, or turn pixel_shuffle off");
  }
  int64_t bound = max_tokens_;  // no sample is longer than its text and its pixels in the smallest patches
  int64_t side = INT64_MAX;
  for (const ItemCut& c : cuts_) side = std::min<int64_t>(side, c.patch * (c.pixel_shuffle ? 2 : 1));
  if (!cuts_.empty()) bound += max_pixels_ / (side * side);
  if (bound <= seq_length) return;
  for (int64_t s = 0; s < samples(); ++s) {
    const int32_t tokens = sizes(s).tokens;
    if (tokens > seq_length)
      throw ConfigError("data.seq_length",
                        "a sample of " + place_ + " is longer: expected at most " +
                            std::to_string(seq_length) + " tokens, found " + std::to_string(tokens) +
                            " in sample " + std::to_string(s),
                        "raise data.seq_length, or leave long samples out of the dataset");
  }
}

SampleSizes Split::sizes(int64_t s) const {
  SampleSizes z;
  z.tokens =
      static_cast<int32_t>(token_offsets_[s + 1] - token_offsets_[s]) - 1;  // the last token is only a label
  z.counted = counted_sum_[s];
  z.items.resize(cuts_.size());
  for (int64_t i = item_offsets_[s]; i < item_offsets_[s + 1]; ++i) {
    const int32_t* it = &items_[static_cast<size_t>(i) * 4];
    const ItemCut& cut = cuts_.at(it[1]);
    ItemSize size{it[2] / cut.patch, it[3] / cut.patch, 0};
    size.rows = size.height * size.width / (cut.pixel_shuffle ? 4 : 1);
    z.items[it[1]].push_back(size);
    z.tokens += size.rows - 1;
  }
  return z;
}

Sample Split::read(int64_t s, bool pixels) const {
  Sample out;
  const int64_t begin = token_offsets_[s], count = token_offsets_[s + 1] - begin;
  out.tokens.resize(static_cast<size_t>(count));
  out.counted.resize(static_cast<size_t>(count));
  tokens_.read(begin, count, out.tokens.data());
  counted_.read(begin, count, out.counted.data());
  for (int64_t i = item_offsets_[s]; i < item_offsets_[s + 1]; ++i) {
    const int32_t* it = &items_[static_cast<size_t>(i) * 4];
    Sample::Item item{it[0], it[1], Image{channels_, it[2], it[3], {}}};
    if (pixels) {
      item.image.pixels.resize(static_cast<size_t>(pixel_offsets_[i + 1] - pixel_offsets_[i]));
      pixels_.read(pixel_offsets_[i], pixel_offsets_[i + 1] - pixel_offsets_[i], item.image.pixels.data());
    }
    out.items.push_back(std::move(item));
  }
  out.kind = kind_[s];
  out.length = length_[s];
  return out;
}

std::shared_ptr<DataFile> open_dataset(const std::filesystem::path& path) {
  const h5::File file = h5::File::open(path);
  if (!file.has_attribute("format") || file.text_attribute("format") != kFormat)
    throw ConfigError(path.string(),
                      "not a dataset of this program: expected format " + std::string(kFormat) + ", found " +
                          (file.has_attribute("format") ? file.text_attribute("format") : "none"),
                      "make one with mimo-data");
  if (file.integer_attribute("version") != kVersion)
    throw ConfigError(path.string(), "unknown version of the dataset format: expected " +
                                         std::to_string(kVersion) + ", found " +
                                         std::to_string(file.integer_attribute("version")));
  DatasetHeader h;
  h.vocab = file.integer_attribute("vocab");
  h.channels = static_cast<int>(file.integer_attribute("channels"));
  h.mean = file.attribute<double>("mean").at(0);
  h.std = file.attribute<double>("std").at(0);
  h.license = file.text_attribute("license");
  h.modalities = file.read_strings("modalities");
  h.kinds = file.read_strings("kinds");
  if (h.channels < 1 || !(h.std > 0))
    throw ConfigError(path.string(), "bad header: channels and std must be positive");
  return std::make_shared<DataFile>(
      DataFile{h, Split(file, path, "train", h), Split(file, path, "heldout", h)});
}

void write_dataset(const std::filesystem::path& path, const DatasetHeader& header,
                   const std::vector<SplitSource>& splits) {
  h5::File file = h5::File::create(path);
  file.set_attribute("format", kFormat);
  file.set_attribute("version", kVersion);
  file.set_attribute("vocab", header.vocab);
  file.set_attribute("channels", int64_t{header.channels});
  file.set_attribute("mean", std::vector<double>{header.mean});
  file.set_attribute("std", std::vector<double>{header.std});
  file.set_attribute("license", header.license);
  file.write_strings("modalities", header.modalities);
  file.write_strings("kinds", header.kinds);
  for (const SplitSource& source : splits) {
    std::vector<int32_t> tokens, items;
    std::vector<uint8_t> counted, pixels, kind, length;
    std::vector<int64_t> token_offsets{0}, item_offsets{0}, pixel_offsets{0};
    int64_t max_tokens = 0, max_counted = 0, max_items = 0, max_pixels = 0;
    h5::Group g = file.create_group(source.name);
    constexpr int64_t kChunk = 1 << 18;
    h5::Dataset pixel_data = g.create_dataset("pixels", DType::u8, {0}, kChunk, 9);
    const auto flush = [&] {
      if (!pixels.empty()) pixel_data.append(DType::u8, pixels.data(), static_cast<int64_t>(pixels.size()));
      pixels.clear();
    };
    for (int64_t i = 0; i < source.samples; ++i) {
      const Sample s = source.make(i);
      tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
      counted.insert(counted.end(), s.counted.begin(), s.counted.end());
      token_offsets.push_back(static_cast<int64_t>(tokens.size()));
      int64_t sample_pixels = 0;
      for (const Sample::Item& item : s.items) {
        items.insert(items.end(), {item.position, item.modality, item.image.height, item.image.width});
        pixels.insert(pixels.end(), item.image.pixels.begin(), item.image.pixels.end());
        pixel_offsets.push_back(pixel_offsets.back() + static_cast<int64_t>(item.image.pixels.size()));
        sample_pixels += static_cast<int64_t>(item.image.pixels.size());
      }
      item_offsets.push_back(static_cast<int64_t>(items.size() / 4));
      kind.push_back(static_cast<uint8_t>(s.kind));
      length.push_back(static_cast<uint8_t>(s.length));
      max_tokens = std::max(max_tokens, static_cast<int64_t>(s.tokens.size()));
      max_counted = std::max<int64_t>(max_counted, std::count(s.counted.begin(), s.counted.end(), 1));
      max_items = std::max(max_items, static_cast<int64_t>(s.items.size()));
      max_pixels = std::max(max_pixels, sample_pixels);
      if (static_cast<int64_t>(pixels.size()) >= kChunk) flush();
    }
    flush();
    const auto compressed = [&]<class T>(const char* name, const std::vector<T>& values, Dims shape) {
      const int64_t rows = shape[0];
      h5::Dataset d = g.create_dataset(name, dtype_of<T>(), shape,
                                       std::max<int64_t>(1, std::min<int64_t>(rows, kChunk)), 9);
      if (rows > 0) d.write(Box{Dims(shape.size(), 0), shape}, dtype_of<T>(), values.data());
    };
    const auto flat = [&]<class T>(const char* name, const std::vector<T>& values) {
      compressed(name, values, {static_cast<int64_t>(values.size())});
    };
    flat("tokens", tokens);
    flat("counted", counted);
    flat("token_offsets", token_offsets);
    compressed("items", items, {static_cast<int64_t>(items.size() / 4), 4});
    flat("item_offsets", item_offsets);
    flat("pixel_offsets", pixel_offsets);
    flat("kind", kind);
    flat("length", length);
    g.set_attribute("samples", source.samples);
    g.set_attribute("headline", source.headline);
    g.set_attribute("max_tokens", max_tokens);
    g.set_attribute("max_counted", max_counted);
    g.set_attribute("max_items", max_items);
    g.set_attribute("max_pixels", max_pixels);
  }
  file.close();
}

}  // namespace mimo
