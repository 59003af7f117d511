#include "data/digits.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>

#include "data/tokenizer.h"

namespace mimo {
namespace {

constexpr int kSide = 8;
constexpr const char* kLicense =
    "Handwritten digits: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine "
    "Learning "
    "Repository, 1998. Creative Commons Attribution 4.0. Changes: composed side by side; training digits "
    "distorted.";

// Sums of two numbers below 50: every seventh pair is held out.
bool held_out_sum(int64_t a, int64_t b) { return (a * 50 + b) % 7 == 3; }

void set_text(Sample& s, const std::string& text) {
  s.tokens = Tokenizer::encode(text);
  s.counted.assign(s.tokens.size(), 0);
  const auto equals = std::find(s.tokens.begin(), s.tokens.end(), '=');
  std::fill(s.counted.begin() + (equals - s.tokens.begin()) + 1, s.counted.end(), 1);
  size_t item = 0;
  for (size_t t = 0; t < s.tokens.size(); ++t)
    if (s.tokens[t] == Tokenizer::image) s.items.at(item++).position = static_cast<int>(t);
}

// Digits drawn from rows [first, last), side by side, dark on white paper; returns their reading.
std::string add_image(Sample& s, const Digits& digits, int count, int first, int last,
                      const Augmentation* augmentation, RandomStream& random) {
  Image image{1, kSide, kSide * count, std::vector<uint8_t>(static_cast<size_t>(kSide * kSide * count))};
  std::string reading;
  for (int n = 0; n < count; ++n) {
    const int64_t row = first + random.below(last - first);
    reading += static_cast<char>('0' + digits.label[row]);
    const std::vector<double> ink =
        augmentation ? augment(digits.ink[row], kSide, kSide, *augmentation, random) : digits.ink[row];
    for (int y = 0; y < kSide; ++y)
      for (int x = 0; x < kSide; ++x)
        image.pixels[static_cast<size_t>(y * kSide * count + n * kSide + x)] =
            static_cast<uint8_t>(255 - std::lround(255 * ink[static_cast<size_t>(y * kSide + x)]));
  }
  s.items.push_back({0, 0, std::move(image)});
  return reading;
}

Sample make_sample(const Digits& digits, DigitsKind kind, std::vector<int> counts, bool train,
                   const Augmentation* augmentation, RandomStream& random) {
  const int first = train ? 0 : kTrainDigits,
            last = train ? kTrainDigits : static_cast<int>(digits.label.size());
  Sample s;
  s.kind = kind;
  std::string prompt = "<begin>", answer;
  if (kind == sum) {
    int64_t a, b;
    do a = random.below(50), b = random.below(50);
    while (held_out_sum(a, b) == train);
    prompt += std::to_string(a) + "+" + std::to_string(b);
    answer = std::to_string(a + b);
  } else {
    for (int count : counts) {
      answer += (answer.empty() ? "" : ",") + add_image(s, digits, count, first, last, augmentation, random);
      prompt += (prompt.ends_with("<image>") ? ",<image>" : "<image>");
    }
    s.length = counts[0] + (counts.size() > 1 ? counts[1] : 0);
  }
  set_text(s, prompt + "=" + answer + "<end>");
  return s;
}

}  // namespace

Digits read_digits(const std::filesystem::path& csv) {
  std::ifstream in(csv);
  if (!in) throw ConfigError(csv.string(), "cannot open the digits: expected a CSV file, found none");
  Digits d;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    std::vector<int> values;
    const char* p = line.data();
    const char* const end = p + line.size();
    while (p < end) {
      int v = -1;
      const auto [next, error] = std::from_chars(p, end, v);
      if (error != std::errc() || v < 0 || v > 16) break;
      values.push_back(v);
      p = next < end && (*next == ',' || *next == '\r') ? next + 1 : next;
      if (next < end && p == next) break;
    }
    if (p < end || values.size() != 65 || values[64] > 9)
      throw ConfigError(
          csv.string() + ":" + std::to_string(number),
          "expected 64 values of 0 to 16 and a class of 0 to 9, found \"" + line.substr(0, 40) + "\"");
    std::vector<double> ink;
    for (int i = 0; i < 64; ++i) ink.push_back(values[static_cast<size_t>(i)] / 16.0);
    d.ink.push_back(std::move(ink));
    d.label.push_back(values[64]);
  }
  if (static_cast<int>(d.label.size()) <= kTrainDigits)
    throw ConfigError(csv.string(), "too few digits: expected more than " + std::to_string(kTrainDigits) +
                                        " rows, found " + std::to_string(d.label.size()));
  return d;
}

Sample train_sample(const Digits& digits, const DigitsOptions& o, int64_t i) {
  RandomStream random(o.seed, "digits.train", static_cast<uint64_t>(i));
  const int64_t ten = random.below(10);
  const DigitsKind kind = ten == 0 ? two_images : ten == 1 ? sum : one_image;
  std::vector<int> counts;
  if (kind == one_image) counts = {static_cast<int>(1 + random.below(6))};
  if (kind == two_images)
    counts = {static_cast<int>(1 + random.below(3)), static_cast<int>(1 + random.below(3))};
  return make_sample(digits, kind, counts, true, &o.augmentation, random);
}

Sample heldout_sample(const Digits& digits, uint64_t seed, int64_t i) {
  RandomStream random(seed, "digits.heldout", static_cast<uint64_t>(i));
  if (i < kHeadline) return make_sample(digits, one_image, {3}, false, nullptr, random);
  if (i < 2200)
    return make_sample(digits, one_image, {std::array{1, 2, 4, 5, 6}[static_cast<size_t>(i % 5)]}, false,
                       nullptr, random);
  if (i < 2400) {
    const int a = static_cast<int>(1 + random.below(3)), b = static_cast<int>(1 + random.below(3));
    return make_sample(digits, two_images, {a, b}, false, nullptr, random);
  }
  return make_sample(digits, sum, {}, false, nullptr, random);
}

void write_digits(const Digits& digits, const DigitsOptions& o, const std::filesystem::path& out) {
  double mean = 0, square = 0;
  for (int i = 0; i < kTrainDigits; ++i)
    for (double ink : digits.ink[static_cast<size_t>(i)]) mean += 1 - ink, square += (1 - ink) * (1 - ink);
  mean /= kTrainDigits * 64.0;
  const double std = std::sqrt(square / (kTrainDigits * 64.0) - mean * mean);
  const DatasetHeader header{Tokenizer::vocab, 1, mean, std, {"image"}, {"one image", "two images", "sum"},
                             kLicense};
  write_dataset(out, header,
                {{"train", o.samples, o.samples, [&](int64_t i) { return train_sample(digits, o, i); }},
                 {"heldout", kHeldoutSamples, kHeadline,
                  [&](int64_t i) { return heldout_sample(digits, o.seed, i); }}});
}

}  // namespace mimo
