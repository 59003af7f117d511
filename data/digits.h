// The digits task: images of 1 to 6 real handwritten digits side by side, and their reading.
//   <begin><image>=1234<end>             seven samples in ten
//   <begin><image>,<image>=12,345<end>   one in ten
//   <begin>37+45=82<end>                 two in ten; no image
// (With one sum in ten, 43 to 89 % of the held-out sums came out right, as the seed fell.)
// What counts: the answer after '=' and <end>. Ink has the 17 levels of the source, also where distorted:
// what lies between is noise, which would double the file, and the rounding makes it the same file on every
// machine.
#pragma once
#include <filesystem>
#include <vector>

#include "data/augment.h"
#include "data/dataset.h"

namespace mimo {

const Tokenizer& digits_tokenizer();

// Rows of digits.csv: 64 ink values 0 to 16 of an 8 x 8 image, and the class.
struct Digits {
  std::vector<std::vector<double>> ink;  // 0 to 1
  std::vector<int> label;
};
Digits read_digits(const std::filesystem::path& csv);  // throws ConfigError naming the line

inline constexpr uint32_t kTrainDigits =
    1437;  // rows 0 to 1436 train, the rest is held out and never trained on

struct DigitsOptions {
  int64_t samples = 36000;
  uint64_t seed = 1;
  Augmentation augmentation;
};

enum class DigitsKind { one_image, two_images, sum };

// Sample i of the training split.
Sample train_sample(const Digits&, const DigitsOptions&, int64_t i);
// Sample i of the held-out split: 1,200 images of three digits, then 200 each of 1, 2, 4, 5 and 6 digits, 200
// of two images, 200 sums that training never shows.
Sample heldout_sample(const Digits&, uint64_t seed, int64_t i);
inline constexpr int64_t kHeadline = 1200, kHeldoutGroup = 200;
inline constexpr int64_t kHeldoutSamples = kHeadline + 7 * kHeldoutGroup;

void write_digits(const Digits&, const DigitsOptions&, const std::filesystem::path& out);

}  // namespace mimo
