#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <sstream>

#include "io/file.h"
#include "io/utf8.h"

namespace mimo {
namespace {

constexpr int32_t kMaxSide = 1 << 20;  // pixels
constexpr int32_t kMaxTime = 1 << 30;  // frames, or samples of sound
constexpr const char* kRewrite = "the file is damaged or badly made: fetch or write it again";

std::string str(int64_t x) { return std::to_string(x); }

// An array whose type and shape are known beforehand, so that a damaged file cannot ask for absurd memory.
h5::Dataset array(const h5::Group& g, const std::string& name, DType dtype, const Dims& shape) {
  h5::Dataset d = g.dataset(name);
  if (d.dtype() != dtype || d.shape() != shape)
    throw ConfigError(d.place(),
                      std::string("the dataset is inconsistent: expected ") + name_of(dtype) + " " +
                          to_string(shape) + ", found " + name_of(d.dtype()) + " " + to_string(d.shape()),
                      kRewrite);
  d.require_whole();
  return d;
}

std::vector<int64_t> offsets(const h5::Group& g, const std::string& name, int64_t rows) {
  const h5::Dataset d = array(g, name, DType::i64, {rows + 1});
  std::vector<int64_t> o = d.read<int64_t>();
  const auto fall = std::adjacent_find(o.begin(), o.end(), std::greater<>());
  if (o.front() != 0 || fall != o.end())
    throw ConfigError(
        d.place(),
        "the dataset is inconsistent: expected offsets rising from 0, found " +
            (o.front() != 0 ? str(o.front()) + " first" : str(*fall) + " before " + str(*(fall + 1))),
        kRewrite);
  return o;
}

// One finite number, or `all` of them.
std::vector<double> number_attribute(const h5::File& file, const std::string& name, size_t all) {
  const std::vector<double> values = file.attribute<double>(name);
  const bool finite = std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
  if (!finite)
    throw ConfigError(file.place(), "attribute " + name + ": expected finite numbers, found others");
  if (values.size() != 1 && values.size() != all)
    throw ConfigError(file.place(), "attribute " + name + ": expected one number" +
                                        (all > 1 ? ", or " + std::to_string(all) : "") + ", found " +
                                        std::to_string(values.size()));
  return values;
}

// Names, one a line. (HDF5's strings of variable length live in a heap without checksums, and reading a
// damaged one crashes the library.)
std::vector<std::string> lines_attribute(const h5::File& file, const std::string& name) {
  std::istringstream text(file.text_attribute(name));
  if (!is_utf8(text.str()))
    throw ConfigError(file.place(), "attribute " + name + ": expected UTF-8, found other text", kRewrite);
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

}  // namespace

// The length of every array follows from those read before it.
Split::Split(const h5::File& file, const std::filesystem::path& path, const std::string& name,
             const DatasetHeader& header, int64_t keep_bytes)
    : place_(path.string() + ":/" + name), modalities_(header.modalities.size()) {
  const h5::Group g = file.group(name);
  const int64_t n = g.integer_attribute("samples");
  headline_ = g.integer_attribute("headline");
  if (n < 0 || n == INT64_MAX || headline_ < 0 || headline_ > n)
    throw ConfigError(place_,
                      "bad attributes: expected 0 <= headline <= samples, found headline " + str(headline_) +
                          ", samples " + str(n),
                      kRewrite);
  require_memory(place_, n, 2 + 2 * sizeof(int64_t) + sizeof(int32_t));
  kind_ = array(g, "kind", DType::u8, {n}).read<uint8_t>();
  length_ = array(g, "length", DType::u8, {n}).read<uint8_t>();
  token_offsets_ = offsets(g, "token_offsets", n);
  item_offsets_ = offsets(g, "item_offsets", n);
  require_memory(place_ + "/items", item_offsets_.back(),
                 sizeof(Item) + sizeof(int64_t) + 5 * sizeof(int32_t));
  read_items(g, header);
  pixel_offsets_ = offsets(g, "pixel_offsets", item_offsets_.back());
  const Dims text{token_offsets_.back()}, pixels{pixel_offsets_.back()};
  tokens_ = FlatArray(array(g, "tokens", DType::i32, text), path, keep_bytes);
  counted_ = FlatArray(array(g, "counted", DType::u8, text), path, keep_bytes);
  pixels_ = FlatArray(array(g, "pixels", DType::u8, pixels), path, keep_bytes);
  counted_labels_.resize(static_cast<size_t>(n));
  for (int64_t s = 0; s < n; ++s) check(s, header);
  if (n > 0 && std::all_of(counted_labels_.begin(), counted_labels_.end(), [](int32_t c) { return c == 0; }))
    refuse("counted", "expected labels that count, found none in " + str(n) + " samples");
}

void Split::read_items(const h5::Group& g, const DatasetHeader& header) {
  const int64_t n = item_offsets_.back();
  // Without a time, all are of one frame.
  const int64_t columns = g.dataset("items").shape() == Dims{n, 5} ? 5 : 4;
  const h5::Dataset items = array(g, "items", DType::i32, {n, columns});
  std::vector<int32_t> table(static_cast<size_t>(n * columns));
  items.read(Box{{0, 0}, items.shape()}, DType::i32, table.data());
  items_digest_ = hash_text({reinterpret_cast<const char*>(table.data()), table.size() * sizeof(table[0])});
  items_.reserve(static_cast<size_t>(n));
  for (const int32_t* row = table.data(); row != table.data() + table.size(); row += columns) {
    const bool known = row[1] >= 0 && row[1] < static_cast<int64_t>(header.modalities.size());
    const int channels = known ? header.modalities[static_cast<size_t>(row[1])].channels : 1;
    items_.push_back(
        {row[0], row[1], {channels, columns == 5 ? row[2] : 1, row[columns - 2], row[columns - 1]}, {}});
  }
}

void Split::refuse(const std::string& where, const std::string& what) const {
  throw ConfigError(place_ + "/" + where, "the dataset is inconsistent: " + what, kRewrite);
}

Split::Range Split::text_of(int64_t s) const {
  const size_t i = static_cast<size_t>(s);
  return {static_cast<size_t>(token_offsets_.at(i)), static_cast<size_t>(token_offsets_.at(i + 1))};
}

Split::Range Split::items_of(int64_t s) const {
  const size_t i = static_cast<size_t>(s);
  return {static_cast<size_t>(item_offsets_.at(i)), static_cast<size_t>(item_offsets_.at(i + 1))};
}

void Split::read_text(int64_t s, std::vector<int32_t>& tokens, std::vector<uint8_t>& counted) const {
  const auto [begin, end] = text_of(s);
  tokens.resize(end - begin);
  counted.resize(end - begin);
  tokens_.read(static_cast<int64_t>(begin), static_cast<int64_t>(end - begin), tokens.data());
  counted_.read(static_cast<int64_t>(begin), static_cast<int64_t>(end - begin), counted.data());
}

void Split::check(int64_t s, const DatasetHeader& header) {
  const std::string sample = "sample " + str(s);
  if (kind_[static_cast<size_t>(s)] >= header.kinds.size())
    refuse("kind", sample + ": expected a kind below " + str(static_cast<int64_t>(header.kinds.size())) +
                       ", found " + str(kind(s)));
  std::vector<int32_t> tokens;
  std::vector<uint8_t> counted;
  read_text(s, tokens, counted);
  if (tokens.size() < 2)
    refuse("token_offsets",
           sample + ": expected at least 2 tokens, found " + str(static_cast<int64_t>(tokens.size())));
  const auto bad =
      std::find_if(tokens.begin(), tokens.end(), [&](int32_t t) { return t < 0 || t >= header.vocab; });
  if (bad != tokens.end())
    refuse("tokens", sample + ": expected tokens below " + str(header.vocab) + ", found " + str(*bad));
  counted_labels_[static_cast<size_t>(s)] = static_cast<int32_t>(
      std::count_if(counted.begin() + 1, counted.end(), [](uint8_t c) { return c != 0; }));

  const auto [first, last] = items_of(s);
  int64_t before = -1;
  for (size_t i = first; i < last; ++i) {
    const Item& it = items_[i];
    const std::string item = sample + ", item " + str(static_cast<int64_t>(i - first)) + ": ";
    if (it.position <= before || it.position >= static_cast<int64_t>(tokens.size()) - 1)
      refuse("items", item + "expected a place after " + str(before) + " and before the last token, " +
                          str(static_cast<int64_t>(tokens.size()) - 1) + ", found " + str(it.position));
    if (counted[static_cast<size_t>(it.position)])
      refuse("counted", item + "expected a place that does not count, found one that does");
    if (it.modality < 0 || it.modality >= static_cast<int64_t>(header.modalities.size()))
      refuse("items", item + "expected a modality below " +
                          str(static_cast<int64_t>(header.modalities.size())) + ", found " +
                          str(it.modality));
    const ItemShape& shape = it.shape;
    const std::string size =
        (shape.time == 1 ? "" : str(shape.time) + " x ") + str(shape.height) + " x " + str(shape.width);
    if (shape.height < 1 || shape.width < 1 || shape.height > kMaxSide || shape.width > kMaxSide)
      refuse("items", item + "expected height and width of 1 to " + str(kMaxSide) + ", found " + size);
    if (shape.time < 1 || shape.time > kMaxTime)
      refuse("items", item + "expected a time of 1 to " + str(kMaxTime) + ", found " + str(shape.time));
    const int64_t bytes = pixel_offsets_[i + 1] - pixel_offsets_[i];
    if (bytes / shape.time / shape.width != int64_t{shape.channels} * shape.height || bytes != shape.numel())
      refuse("pixel_offsets",
             item + "expected " + str(shape.channels) + " x " + size + " pixels, found " + str(bytes));
    before = it.position;
  }
}

void Split::prepare(const std::vector<Preprocessing>& modalities, int64_t seq_length) {
  MIMO_CHECK(modalities.size() == modalities_, "what is done with items of every modality");
  const std::string place = place_ + "/items";
  for (Item& it : items_) it.size = item_size(modalities[static_cast<size_t>(it.modality)], it.shape, place);
  int64_t longest = 0, at = 0;
  for (int64_t s = 0; s < samples(); ++s) {
    if (stream_tokens(s) > longest) longest = stream_tokens(s), at = s;
    constexpr int64_t kMostClassTokens = 1024;
    int64_t rows = 0;
    for (size_t i = items_of(s).begin; i < items_of(s).end; ++i)
      rows += items_[i].size.patches() + items_[i].size.time * kMostClassTokens;
    most_rows_ = std::max({most_rows_, longest, rows});
  }
  if (longest > seq_length)
    throw ConfigError(
        "data.seq_length",
        "a sample of " + place_ + " is longer: expected at most " + str(seq_length) + " tokens, found " +
            str(longest) + " in sample " + str(at) + ", the longest",
        "raise data.seq_length to " + str(longest) + ", or leave long samples out of the dataset");
}

int64_t Split::stream_tokens(int64_t s) const {
  const Range text = text_of(s), items = items_of(s);
  int64_t n = static_cast<int64_t>(text.end - text.begin) - 1;
  for (size_t i = items.begin; i < items.end; ++i) n += items_[i].size.rows - 1;
  return n;
}

SampleSizes Split::sizes(int64_t s) const {
  SampleSizes z;
  z.tokens = static_cast<int32_t>(stream_tokens(s));
  z.counted = counted_labels_[static_cast<size_t>(s)];
  z.items.resize(modalities_);
  const Range items = items_of(s);
  for (size_t i = items.begin; i < items.end; ++i)
    z.items[static_cast<size_t>(items_[i].modality)].push_back(items_[i].size);
  return z;
}

Sample Split::read(int64_t s, bool bytes) const {
  Sample out;
  read_text(s, out.tokens, out.counted);
  const Range items = items_of(s);
  out.items.reserve(items.end - items.begin);
  for (size_t i = items.begin; i < items.end; ++i) {
    const Item& it = items_[i];
    out.items.push_back({it.position, it.modality, it.shape, {}});
    if (!bytes) continue;
    const int64_t begin = pixel_offsets_[i], count = pixel_offsets_[i + 1] - begin;
    out.items.back().bytes.resize(static_cast<size_t>(count));
    pixels_.read(begin, count, out.items.back().bytes.data());
  }
  out.kind = kind(s);
  out.length = length(s);
  return out;
}

std::string Split::digest() const {
  const auto of = [](const auto& values) {
    return hash_text({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0])});
  };
  return hash_text(str(headline_) + of(token_offsets_) + of(item_offsets_) + of(pixel_offsets_) +
                   items_digest_ + of(kind_) + of(length_) + tokens_.digest() + counted_.digest() +
                   pixels_.digest());
}

namespace {

// Licence, tokenizer, prompt and task are no part: they change nothing of what is trained.
std::string digest_of(const DataFile& d) {
  std::ostringstream text;
  text.precision(17);
  text << d.header.vocab;
  for (const Modality& m : d.header.modalities) {
    text << ' ' << m.channels;
    for (const std::vector<double>& values : {m.mean, m.std})
      for (double x : values) text << ' ' << x;
  }
  for (const Modality& m : d.header.modalities) text << '\n' << m.name;
  for (const std::string& name : d.header.kinds) text << "\n\n" << name;
  return hash_text(text.str() + '\n' + d.train.digest() + d.heldout.digest());
}

// The values of one modality's channels, which begin at `first`.
std::vector<double> values_of(const std::vector<double>& all, size_t first, int channels) {
  if (all.size() == 1) return std::vector<double>(static_cast<size_t>(channels), all[0]);
  return {all.begin() + static_cast<std::ptrdiff_t>(first),
          all.begin() + static_cast<std::ptrdiff_t>(first) + channels};
}

std::vector<Modality> read_modalities(const h5::File& file) {
  std::vector<Modality> modalities;
  for (const std::string& name : lines_attribute(file, "modalities")) {
    const bool twice =
        std::any_of(modalities.begin(), modalities.end(), [&](const Modality& m) { return m.name == name; });
    if (name.empty() || twice || printable(name) != name)
      throw ConfigError(file.place(),
                        "attribute modalities: expected different names, found \"" + printable(name) + '"',
                        kRewrite);
    modalities.push_back({.name = name});
  }
  const std::vector<int64_t> channels = file.attribute<int64_t>("channels");
  if (channels.size() != 1 && channels.size() != modalities.size())
    throw ConfigError(file.place(), "attribute channels: expected one number, or " +
                                        std::to_string(modalities.size()) + ", found " +
                                        std::to_string(channels.size()));
  for (int64_t c : channels)
    if (c < 1 || c > 1024)
      throw ConfigError(file.place(), "bad header: expected 1 to 1024 channels, found " + str(c), kRewrite);
  size_t all = 0;
  for (size_t i = 0; i < modalities.size(); ++i) {
    modalities[i].channels = static_cast<int>(channels[channels.size() == 1 ? 0 : i]);
    all += static_cast<size_t>(modalities[i].channels);
  }
  const std::vector<double> mean = number_attribute(file, "mean", all),
                            std = number_attribute(file, "std", all);
  // Pixels are normalised in single precision.
  const auto outside = [](double x) { return std::abs(x) > 1e6; };
  const auto degenerate = [](double x) { return x < 1e-6 || x > 1e6; };
  const auto bad_mean = std::find_if(mean.begin(), mean.end(), outside);
  const auto bad_std = std::find_if(std.begin(), std.end(), degenerate);
  if (bad_mean != mean.end() || bad_std != std.end()) {
    std::ostringstream found;
    found << (bad_mean != mean.end() ? "mean " : "std ") << (bad_mean != mean.end() ? *bad_mean : *bad_std);
    throw ConfigError(
        file.place(),
        "bad header: expected mean from -1e6 to 1e6, std from 1e-6 to 1e6; found " + found.str(), kRewrite);
  }
  size_t first = 0;
  for (Modality& m : modalities) {
    m.mean = values_of(mean, first, m.channels);
    m.std = values_of(std, first, m.channels);
    first += static_cast<size_t>(m.channels);
  }
  return modalities;
}

DatasetHeader read_header(const h5::File& file) {
  DatasetHeader h;
  h.vocab = file.integer_attribute("vocab");
  if (h.vocab < 1 || h.vocab > INT32_MAX)
    throw ConfigError(file.place(),
                      "bad header: expected vocab of 1 to " + str(INT32_MAX) + ", found " + str(h.vocab),
                      kRewrite);
  h.license = file.text_attribute("license");
  h.modalities = read_modalities(file);
  h.kinds = lines_attribute(file, "kinds");
  for (const auto& [name, text] : {std::pair<const char*, std::string*>{"tokenizer", &h.tokenizer},
                                   {"template", &h.prompt.text},
                                   {"prompt", &h.prompt.prompt},
                                   {"stop", &h.prompt.stop},
                                   {"task", &h.task}}) {
    if (!file.has_attribute(name)) continue;
    *text = file.text_attribute(name);
    if (!is_utf8(*text))
      throw ConfigError(file.place(), std::string("attribute ") + name + ": expected UTF-8, found other text",
                        kRewrite);
  }
  return h;
}

}  // namespace

std::shared_ptr<DataFile> open_dataset(const std::filesystem::path& path, int64_t keep_bytes) {
  const h5::File file = h5::File::open(path);
  const std::string format = file.has_attribute("format") ? file.text_attribute("format") : "none";
  if (format != kDatasetFormat)
    throw ConfigError(
        path.string(),
        std::string("not a dataset of this program: expected format ") + kDatasetFormat + ", found " + format,
        "make one with mimo-data");
  const int64_t version = file.integer_attribute("version");
  if (version != kDatasetVersion)
    throw ConfigError(
        path.string(),
        "unknown version of the dataset format: expected " + str(kDatasetVersion) + ", found " + str(version),
        version > kDatasetVersion ? "the file is newer than this program: build a newer one" : kRewrite);
  const DatasetHeader h = read_header(file);
  auto data = std::make_shared<DataFile>(DataFile{h,
                                                  make_tokenizer(h.tokenizer, path.string() + ": tokenizer"),
                                                  Split(file, path, "train", h, keep_bytes),
                                                  Split(file, path, "heldout", h, keep_bytes),
                                                  {}});
  data->digest = digest_of(*data);
  return data;
}

}  // namespace mimo
