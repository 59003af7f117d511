#include "data/digits.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "data/write_dataset.h"
#include "io/file.h"

namespace mimo {
namespace {

constexpr int kSide = 8;
constexpr int kLevels = 16;  // of ink, from paper to full
constexpr const char* kLicense =
    "Handwritten digits: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine "
    "Learning Repository, 1998. Creative Commons Attribution 4.0 International. Changes: composed side by "
    "side; training digits distorted.";

// Sums of two numbers below 50. The rule is symmetric, so that no held-out sum is trained on with its numbers
// exchanged, and leaves every result in training: what is held out is the sum, not the answer.
bool held_out_sum(int a, int b) { return std::abs(a - b) % 7 == 3; }

void set_text(Sample& s, const std::string& text) {
  s.tokens = digits_tokenizer().encode(text);
  const int32_t image = *digits_tokenizer().special(placeholder("image"));
  const auto answer = std::find(s.tokens.begin(), s.tokens.end(), '=') + 1;
  s.counted.assign(s.tokens.size(), 0);
  std::fill(s.counted.begin() + (answer - s.tokens.begin()), s.counted.end(), 1);
  size_t item = 0;
  for (size_t t = 0; t < s.tokens.size(); ++t)
    if (s.tokens[t] == image) s.items.at(item++).position = static_cast<int>(t);
}

// `count` random digits side by side, dark on white paper; returns their reading. Distorted training digits,
// or, without an augmentation, held-out ones as they are.
std::string add_image(Sample& s, const Digits& digits, int count, const Augmentation* augmentation,
                      RandomStream& random) {
  const uint32_t first = augmentation ? 0 : kTrainDigits,
                 last = augmentation ? kTrainDigits : static_cast<uint32_t>(digits.label.size());
  Image image{1, kSide, kSide * count, std::vector<uint8_t>(static_cast<size_t>(kSide * kSide * count))};
  std::string reading;
  for (int n = 0; n < count; ++n) {
    const size_t row = first + random.below(last - first);
    reading += static_cast<char>('0' + digits.label[row]);
    const std::vector<double> ink =
        augmentation ? augment(digits.ink[row], kSide, kSide, *augmentation, random) : digits.ink[row];
    for (int y = 0; y < kSide; ++y)
      for (int x = 0; x < kSide; ++x) {
        const long level = std::lround(kLevels * ink[static_cast<size_t>(y * kSide + x)]);
        image.pixels[static_cast<size_t>((y * count + n) * kSide + x)] =
            static_cast<uint8_t>(255 - (255 * level + kLevels / 2) / kLevels);
      }
  }
  s.add(0, 0, std::move(image));
  return reading;
}

Sample image_sample(const Digits& digits, const std::vector<int>& counts, const Augmentation* augmentation,
                    RandomStream& random) {
  Sample s;
  s.kind = static_cast<int>(counts.size() == 1 ? DigitsKind::one_image : DigitsKind::two_images);
  std::string places, answer;
  for (int count : counts) {
    const std::string reading = add_image(s, digits, count, augmentation, random);
    places += places.empty() ? "<image>" : ",<image>";
    answer += (answer.empty() ? "" : ",") + reading;
    s.length += count;
  }
  set_text(s, "<begin>" + places + "=" + answer + "<end>");
  return s;
}

Sample sum_sample(bool held_out, RandomStream& random) {
  int a, b;
  do {
    a = static_cast<int>(random.below(50));
    b = static_cast<int>(random.below(50));
  } while (held_out_sum(a, b) != held_out);
  Sample s;
  s.kind = static_cast<int>(DigitsKind::sum);
  set_text(s,
           "<begin>" + std::to_string(a) + "+" + std::to_string(b) + "=" + std::to_string(a + b) + "<end>");
  return s;
}

std::vector<int> two_counts(RandomStream& random) {
  const int first = static_cast<int>(1 + random.below(3)), second = static_cast<int>(1 + random.below(3));
  return {first, second};
}

// The numbers of a line of the CSV; empty where it is none.
std::vector<int> parse_row(const std::string& line) {
  std::vector<int> values;
  const char *p = line.data(), *end = p + line.size();
  if (p < end && end[-1] == '\r') --end;
  while (true) {
    int v = -1;
    const auto [next, error] = std::from_chars(p, end, v);
    if (error != std::errc()) return {};
    values.push_back(v);
    if (next == end) return values;
    if (*next != ',') return {};
    p = next + 1;
  }
}

}  // namespace

const Tokenizer& digits_tokenizer() {
  static const auto tokenizer = make_tokenizer(kDigitsTokenizer, "digits");
  return *tokenizer;
}

Digits read_digits(const std::filesystem::path& csv) {
  require_file(csv);
  std::ifstream in(csv);
  if (!in) throw ConfigError(csv.string(), "cannot open the digits: expected a CSV file, found none");
  Digits d;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    const std::vector<int> values = parse_row(line);
    bool good = values.size() == kSide * kSide + 1 && values.back() >= 0 && values.back() <= 9;
    std::vector<double> ink;
    for (size_t i = 0; good && i + 1 < values.size(); ++i) {
      good = values[i] >= 0 && values[i] <= kLevels;
      ink.push_back(values[i] / double{kLevels});
    }
    if (!good)
      throw ConfigError(
          csv.string() + ":" + std::to_string(number),
          "expected 64 values of 0 to 16 and a class of 0 to 9, found \"" + line.substr(0, 40) + "\"");
    d.ink.push_back(std::move(ink));
    d.label.push_back(values.back());
  }
  if (d.label.size() <= kTrainDigits)
    throw ConfigError(csv.string(), "too few digits: expected more than " + std::to_string(kTrainDigits) +
                                        " rows, found " + std::to_string(d.label.size()));
  return d;
}

Sample train_sample(const Digits& digits, const DigitsOptions& o, int64_t i) {
  RandomStream random(o.seed, "digits.train", static_cast<uint32_t>(i));
  const uint32_t ten = random.below(10);
  if (ten < 2) return sum_sample(false, random);
  if (ten == 2) return image_sample(digits, two_counts(random), &o.augmentation, random);
  return image_sample(digits, {static_cast<int>(1 + random.below(6))}, &o.augmentation, random);
}

Sample heldout_sample(const Digits& digits, uint64_t seed, int64_t i) {
  MIMO_CHECK(i >= 0 && i < kHeldoutSamples, "held-out sample");
  RandomStream random(seed, "digits.heldout", static_cast<uint32_t>(i));
  if (i < kHeadline) return image_sample(digits, {3}, nullptr, random);
  const int64_t group = (i - kHeadline) / kHeldoutGroup;
  const int lengths[] = {1, 2, 4, 5, 6};
  if (group < 5) return image_sample(digits, {lengths[group]}, nullptr, random);
  if (group == 5) return image_sample(digits, two_counts(random), nullptr, random);
  return sum_sample(true, random);
}

void write_digits(const Digits& digits, const DigitsOptions& o, const std::filesystem::path& out) {
  // Moments of the paper's lightness over the training digits, in whole levels: the same bits on every
  // machine.
  int64_t n = 0, sum = 0, squares = 0;
  for (size_t i = 0; i < kTrainDigits; ++i)
    for (double ink : digits.ink[i]) {
      const int64_t light = kLevels - std::lround(kLevels * ink);
      ++n, sum += light, squares += light * light;
    }
  const double mean = static_cast<double>(sum) / static_cast<double>(n * kLevels),
               std =
                   std::sqrt(static_cast<double>(n * squares - sum * sum)) / static_cast<double>(n * kLevels);
  const DatasetHeader header{.vocab = digits_tokenizer().vocab(),
                             .modalities = {{.name = "image", .channels = 1, .mean = {mean}, .std = {std}}},
                             .kinds = {"one image", "two images", "sum"},
                             .license = kLicense};
  write_dataset(out, header,
                {{"train", o.samples, o.samples, [&](int64_t i) { return train_sample(digits, o, i); }},
                 {"heldout", kHeldoutSamples, kHeadline,
                  [&](int64_t i) { return heldout_sample(digits, o.seed, i); }}});
}

}  // namespace mimo
