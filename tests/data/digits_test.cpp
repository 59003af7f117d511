#include "data/digits.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <set>

#include "data/tokenizer.h"
#include "io/file.h"
#include "tests/data/tokens.h"
#include "tests/io/temp_dir.h"

namespace mimo {
namespace {

const Digits& digits() {
  static const Digits d = read_digits("data/optdigits/digits.csv");
  return d;
}

DigitsOptions undistorted() {
  DigitsOptions o;
  o.augmentation = {0, 0, 0, 0, 0, 0};
  return o;
}

int kind_of(DigitsKind k) { return static_cast<int>(k); }

// What stands between "=" and <end>, and before.
std::pair<std::string, std::string> split_text(const Sample& s) {
  const std::string text = digits_tokenizer().decode(s.tokens);
  const size_t equals = text.find('=');
  EXPECT_TRUE(text.starts_with("<begin>") && text.ends_with("<end>") && equals != std::string::npos) << text;
  return {text.substr(7, equals - 7), text.substr(equals + 1, text.size() - equals - 6)};
}

// The rows of the CSV whose image is this one, bit for bit.
std::vector<size_t> rows_of(const Image& image, int digit) {
  static const std::map<std::string, std::vector<size_t>> rows = [] {
    std::map<std::string, std::vector<size_t>> m;
    for (size_t i = 0; i < digits().ink.size(); ++i) {
      std::string pixels;
      for (double ink : digits().ink[i]) pixels += static_cast<char>(255 - std::lround(ink * 255));
      m[pixels].push_back(i);
    }
    return m;
  }();
  std::string pixels;
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 8; ++x)
      pixels += static_cast<char>(image.pixels[static_cast<size_t>(y * image.width + 8 * digit + x)]);
  const auto found = rows.find(pixels);
  return found == rows.end() ? std::vector<size_t>{} : found->second;
}

// Every digit of the sample is a row in [first, last) and the text is its reading; the rows that were used.
std::set<size_t> check_reading(const Sample& s, size_t first, size_t last) {
  std::set<size_t> used;
  std::string labels;
  for (const Sample::Item& item : s.items) {
    EXPECT_EQ(item.shape.height, 8);
    EXPECT_EQ(s.tokens.at(static_cast<size_t>(item.position)), kImage);
    labels += labels.empty() ? "" : ",";
    for (int d = 0; d < item.shape.width / 8; ++d) {
      const std::vector<size_t> rows = rows_of(item.image(), d);
      EXPECT_FALSE(rows.empty());
      for (size_t r : rows) {
        EXPECT_TRUE(r >= first && r < last) << "row " << r;
        used.insert(r);
      }
      labels += rows.empty() ? '?' : static_cast<char>('0' + digits().label[rows[0]]);
    }
  }
  EXPECT_EQ(split_text(s).second, labels);
  return used;
}

// The answer and <end> count, nothing else does.
void check_counted(const Sample& s) {
  const auto [prompt, answer] = split_text(s);
  ASSERT_EQ(s.counted.size(), s.tokens.size());
  const size_t counted = answer.size() + 1;
  for (size_t t = 0; t < s.tokens.size(); ++t) EXPECT_EQ(s.counted[t], t + counted >= s.tokens.size());
}

TEST(Digits, TheSource) {
  ASSERT_EQ(digits().label.size(), 1797u);
  std::map<int, int> classes;
  for (int label : digits().label) ++classes[label];
  EXPECT_EQ(classes.size(), 10u);
  for (const auto& [label, n] : classes) EXPECT_NEAR(n, 180, 10) << label;
  EXPECT_EQ(digits().ink[0][2], 5 / 16.0);
  // No image lies on both sides of the split; otherwise rows could not be told apart by their pixels.
  std::set<std::vector<double>> train(digits().ink.begin(), digits().ink.begin() + kTrainDigits);
  for (size_t i = kTrainDigits; i < digits().ink.size(); ++i) EXPECT_FALSE(train.count(digits().ink[i])) << i;
}

TEST(Digits, TrainingSamplesAreTrainingDigits) {
  constexpr int n = 6000;
  std::set<size_t> used;
  std::map<int, int> kinds, lengths;
  for (int i = 0; i < n; ++i) {
    const Sample s = train_sample(digits(), undistorted(), i);
    if (s.kind != kind_of(DigitsKind::sum)) used.merge(check_reading(s, 0, kTrainDigits));
    check_counted(s);
    ++kinds[s.kind];
    if (s.kind == kind_of(DigitsKind::one_image)) {
      ++lengths[s.length];
      EXPECT_EQ(s.items.at(0).shape.width, 8 * s.length);
    }
    EXPECT_EQ(s.items.size(), s.kind == kind_of(DigitsKind::sum)          ? 0u
                              : s.kind == kind_of(DigitsKind::two_images) ? 2u
                                                                          : 1u);
  }
  EXPECT_EQ(used.size(), kTrainDigits);  // all of them, about 13 times each
  // Five standard deviations of binomial counts.
  EXPECT_NEAR(kinds[kind_of(DigitsKind::sum)], n / 5, 5 * std::sqrt(n * 0.16));
  EXPECT_NEAR(kinds[kind_of(DigitsKind::two_images)], n / 10, 5 * std::sqrt(n * 0.09));
  ASSERT_EQ(lengths.size(), 6u);
  for (const auto& [length, count] : lengths)
    EXPECT_NEAR(count, 0.7 * n / 6, 5 * std::sqrt(n * 0.7 / 6)) << length;
}

TEST(Digits, DistortedSamplesHaveTheLevelsOfTheSource) {
  std::set<uint8_t> levels;
  for (int level = 0; level <= 16; ++level)
    levels.insert(static_cast<uint8_t>(255 - std::lround(level * 255 / 16.0)));
  std::set<uint8_t> found;
  int changed = 0, all = 0;
  for (int i = 0; i < 300; ++i) {
    const Sample s = train_sample(digits(), {}, i);
    for (const Sample::Item& item : s.items) {
      found.insert(item.bytes.begin(), item.bytes.end());
      for (int d = 0; d < item.shape.width / 8; ++d) changed += rows_of(item.image(), d).empty(), ++all;
    }
    // Distortion leaves the text's form alone.
    check_counted(s);
  }
  EXPECT_EQ(found, levels);
  EXPECT_GT(changed, all * 99 / 100);
}

TEST(Digits, HeldOutSamplesAreHeldOutDigits) {
  std::map<int, int> kinds, lengths;
  std::set<size_t> used;
  for (int64_t i = 0; i < kHeldoutSamples; ++i) {
    const Sample s = heldout_sample(digits(), 1, i);
    check_counted(s);
    ++kinds[s.kind];
    EXPECT_TRUE(i >= kHeadline || (s.kind == 0 && s.length == 3));
    if (s.kind == kind_of(DigitsKind::one_image)) ++lengths[s.length];
    if (s.kind != kind_of(DigitsKind::sum)) used.merge(check_reading(s, kTrainDigits, digits().label.size()));
  }
  EXPECT_EQ(kinds, (std::map<int, int>{{0, 2200}, {1, 200}, {2, 200}}));
  EXPECT_EQ(lengths, (std::map<int, int>{{1, 200}, {2, 200}, {3, 1200}, {4, 200}, {5, 200}, {6, 200}}));
  EXPECT_EQ(used.size(), digits().label.size() - kTrainDigits);
  EXPECT_THROW(heldout_sample(digits(), 1, kHeldoutSamples), std::logic_error);
}

// Numbers of a sum and its result.
struct Sum {
  int a, b, c;
};
Sum sum_of(const Sample& s) {
  const auto [prompt, answer] = split_text(s);
  const size_t plus = prompt.find('+');
  return {std::stoi(prompt), std::stoi(prompt.substr(plus + 1)), std::stoi(answer)};
}

TEST(Digits, HeldOutSumsAreNeverTrained) {
  std::set<std::pair<int, int>> trained, held_out;
  std::set<int> results;
  for (int i = 0; i < 40000; ++i) {
    RandomStream first(1, "digits.train", static_cast<uint32_t>(i));
    if (first.below(10) > 1) continue;  // not a sum: nothing to compose
    const Sample s = train_sample(digits(), undistorted(), i);
    ASSERT_EQ(s.kind, kind_of(DigitsKind::sum));
    const auto [a, b, c] = sum_of(s);
    ASSERT_EQ(a + b, c);
    trained.insert({std::min(a, b), std::max(a, b)});
    results.insert(c);
  }
  for (int64_t i = 0; i < kHeldoutSamples; ++i) {
    const Sample s = heldout_sample(digits(), 1, i);
    if (s.kind != kind_of(DigitsKind::sum)) continue;
    const auto [a, b, c] = sum_of(s);
    ASSERT_EQ(a + b, c);
    held_out.insert({std::min(a, b), std::max(a, b)});
    EXPECT_FALSE(trained.count({std::min(a, b), std::max(a, b)})) << a << " + " << b;
    EXPECT_TRUE(results.count(c)) << "no training sum has the result " << c;
  }
  EXPECT_GT(held_out.size(), 80u);
  EXPECT_GT(trained.size(), 1000u);
}

TEST(Digits, TheFileIsReproducible) {
  TempDir dir;
  DigitsOptions o;
  o.samples = 40;
  write_digits(digits(), o, dir / "a.h5");
  write_digits(digits(), o, dir / "b.h5");
  EXPECT_TRUE(read_text(dir / "a.h5") == read_text(dir / "b.h5"));
  o.seed = 2;
  write_digits(digits(), o, dir / "b.h5");
  EXPECT_FALSE(read_text(dir / "a.h5") == read_text(dir / "b.h5"));
}

// The sums of levels that give mean and std are integers, so these are exact.
TEST(Digits, HeaderHasTheMomentsOfTheTrainingDigits) {
  const auto d = open_dataset("data/digits.h5");
  double mean = 0, square = 0;
  for (size_t i = 0; i < kTrainDigits; ++i)
    for (double ink : digits().ink[i]) mean += (1 - ink) / (kTrainDigits * 64.0);
  for (size_t i = 0; i < kTrainDigits; ++i)
    for (double ink : digits().ink[i]) square += (1 - ink - mean) * (1 - ink - mean) / (kTrainDigits * 64.0);
  EXPECT_NEAR(d->header.modalities[0].mean[0], mean, 1e-10);
  EXPECT_NEAR(d->header.modalities[0].std[0], std::sqrt(square), 1e-10);
  EXPECT_EQ(d->header.vocab, kVocab);
  EXPECT_EQ(d->header.kinds, (std::vector<std::string>{"one image", "two images", "sum"}));
  EXPECT_NE(d->header.license.find("Attribution 4.0"), std::string::npos);
}

void expect_same(const Sample& a, const Sample& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.counted, b.counted);
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.length, b.length);
  ASSERT_EQ(a.items.size(), b.items.size());
  for (size_t i = 0; i < a.items.size(); ++i) {
    EXPECT_EQ(a.items[i].position, b.items[i].position);
    EXPECT_EQ(a.items[i].shape.width, b.items[i].shape.width);
    EXPECT_EQ(a.items[i].bytes, b.items[i].bytes);
  }
}

TEST(Digits, TheShippedFileIsWhatTheDefaultsMake) {
  const auto d = open_dataset("data/digits.h5");
  const DigitsOptions o;
  ASSERT_EQ(d->train.samples(), o.samples);
  ASSERT_EQ(d->heldout.samples(), kHeldoutSamples);
  EXPECT_EQ(d->train.headline(), o.samples);
  EXPECT_EQ(d->heldout.headline(), kHeadline);
  std::vector<int64_t> some;
  for (int64_t i = 0; i < 50; ++i) some.push_back(i);
  for (int64_t i : some) expect_same(d->train.read(i), train_sample(digits(), o, i));
  for (int64_t i : some) expect_same(d->heldout.read(i), heldout_sample(digits(), o.seed, i));
  expect_same(d->train.read(o.samples - 1), train_sample(digits(), o, o.samples - 1));
  for (int64_t i = kHeadline; i < kHeldoutSamples; i += 50)
    expect_same(d->heldout.read(i), heldout_sample(digits(), o.seed, i));
}

TEST(Digits, ErrorsNameTheLine) {
  TempDir dir;
  const std::string good = read_text("data/optdigits/digits.csv");
  const auto message = [&](const std::string& text) {
    write_text(dir / "d.csv", text);
    return thrown<ConfigError>([&] { read_digits(dir / "d.csv"); });
  };
  EXPECT_CONTAINS(thrown<ConfigError>([&] { read_digits(dir / "none.csv"); }), "none.csv] cannot open");
  const size_t second = good.find('\n') + 1, third = good.find('\n', second) + 1;
  const std::string row = good.substr(second, third - 1 - second);
  const auto with = [&](const std::string& line) {
    return good.substr(0, second) + line + good.substr(third - 1);
  };
  EXPECT_EQ(message(with(row)), "nothing was thrown");
  EXPECT_EQ(message(with(row + "\r")), "nothing was thrown");
  for (const std::string& bad :
       {std::string(), "x" + row, row + ",", row + ",1", row + "x", row.substr(2), "17" + row.substr(1),
        "-1" + row.substr(1), row.substr(0, row.size() - 1) + "10", row.substr(0, 30) + "," + row.substr(30)})
    EXPECT_CONTAINS(message(with(bad)),
                    "d.csv:2] expected 64 values of 0 to 16 and a class of 0 to 9, found \"");
  EXPECT_CONTAINS(message(good.substr(0, third)), "too few digits: expected more than 1437 rows, found 2");
  EXPECT_CONTAINS(message(""), "too few digits");
}

// The program itself.
struct Outcome {
  int status;
  std::string text;
};
Outcome mimo_data(const TempDir& dir, const std::string& arguments) {
  EXPECT_TRUE(std::filesystem::exists("mimo-data")) << "build it first: make mimo-data";
  const std::string out = (dir / "out").string();
  const int status = std::system(("./mimo-data " + arguments + " >" + out + " 2>&1").c_str());
  return {WEXITSTATUS(status), read_text(out)};
}

TEST(MimoData, ComposesAndShows) {
  TempDir dir;
  const std::string file = (dir / "d.h5").string(), png = (dir / "p.png").string();
  Outcome o = mimo_data(dir, "digits --samples 30 --out " + file);
  EXPECT_EQ(o.status, 0) << o.text;
  EXPECT_CONTAINS(o.text, "train         30 samples, 19 one image, 6 sum, 5 two images");
  DigitsOptions options;
  options.samples = 30;
  write_digits(digits(), options, dir / "e.h5");
  EXPECT_TRUE(read_text(file) == read_text(dir / "e.h5"));

  o = mimo_data(dir, "info " + file);
  EXPECT_EQ(o.status, 0);
  EXPECT_CONTAINS(o.text, "vocab 259, task exact_match\n  image: channels 1");
  EXPECT_CONTAINS(o.text, "heldout     2600 samples, 2200 one image, 200 sum, 200 two images");
  EXPECT_CONTAINS(o.text, "Alpaydin");

  const Sample s = heldout_sample(digits(), 1, 2300);
  ASSERT_EQ(s.items.size(), 2u);
  o = mimo_data(dir, "show " + file + " --split heldout --sample 2300 --png " + png);
  EXPECT_EQ(o.status, 0);
  EXPECT_CONTAINS(o.text, digits_tokenizer().decode(s.tokens));
  EXPECT_CONTAINS(o.text, draw(s.items[0].image()));
  EXPECT_EQ(read_png(png, 1).pixels, s.items[0].bytes);
  EXPECT_EQ(read_png(dir / "p-1.png", 1).pixels, s.items[1].bytes);
}

TEST(MimoData, ReplacesNothingUnlessTold) {
  TempDir dir;
  const std::string file = (dir / "d.h5").string();
  write_text(file, "a year's work");
  const Outcome o = mimo_data(dir, "digits --samples 3 --out " + file);
  EXPECT_EQ(o.status, 2);
  EXPECT_CONTAINS(o.text, "[--out] in the way: expected no file of that name, found " + file);
  EXPECT_CONTAINS(o.text, "hint: --force replaces it");
  EXPECT_EQ(read_text(file), "a year's work");
  EXPECT_EQ(mimo_data(dir, "digits --samples 3 --force --out " + file).status, 0);
  EXPECT_EQ(open_dataset(file)->train.samples(), 3);
}

TEST(MimoData, AFullDiskLeavesNothingBehind) {
  TempDir dir;
  const std::string file = (dir / "d.h5").string(), out = (dir / "out").string();
  const int status = std::system(
      ("(ulimit -f 16; exec ./mimo-data digits --samples 3000 --out " + file + ") >" + out + " 2>&1")
          .c_str());
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_CONTAINS(read_text(out), "File too large");
  EXPECT_FALSE(std::filesystem::exists(file));
  EXPECT_FALSE(std::filesystem::exists(file + ".tmp"));
}

TEST(MimoData, SaysThatAFileIsLocked) {
  TempDir dir;
  const std::string file = (dir / "d.h5").string(), out = (dir / "out").string();
  std::filesystem::copy_file("data/digits.h5", file);
  const int descriptor = ::open(file.c_str(), O_RDWR);
  ASSERT_EQ(::flock(descriptor, LOCK_EX), 0);
  const int status =
      std::system(("HDF5_USE_FILE_LOCKING=TRUE ./mimo-data info " + file + " >" + out + " 2>&1").c_str());
  ::close(descriptor);
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_CONTAINS(read_text(out), "d.h5] locked (HDF5: unable to lock file");
}

TEST(MimoData, RefusesWrongArguments) {
  TempDir dir;
  for (const char* arguments : {"",
                                "nonsense",
                                "info",
                                "show data/digits.h5 --sample 1000000",
                                "show data/digits.h5 --sample -1",
                                "show data/digits.h5 --split test",
                                "show data/digits.h5 --sample x",
                                "show data/digits.h5 --split heldout --sample 2599 --png x.png",
                                "info no.h5",
                                "info data/optdigits/digits.csv",
                                "digits --samples 0",
                                "digits --csv no.csv --out x.h5",
                                "digits --samples 3.5 --out x.h5",
                                "digits --noise nan --out x.h5",
                                "digits --shift -1 --out x.h5",
                                "digits --seed -1 --out x.h5",
                                "digits nonsense",
                                "info data/digits.h5 more",
                                "info /dev/zero",
                                "digits --csv /dev/zero --out x.h5"}) {
    const Outcome o = mimo_data(dir, arguments);
    EXPECT_EQ(o.status, 2) << arguments << ": " << o.text;
    EXPECT_FALSE(o.text.empty());
  }
  EXPECT_CONTAINS(mimo_data(dir, "show data/digits.h5 --split heldout --sample 2600").text,
                  "error: [--sample] no such sample in heldout: expected 0 to 2599, found 2600");
  EXPECT_EQ(mimo_data(dir, "digits --samples 1 --out " + (dir / "no" / "d.h5").string()).status, 1);
  const std::string pipe =
      (dir / "pipe").string();  // a device could be lost to the fault that this looks for
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(mimo_data(dir, "digits --samples 3 --force --out " + pipe).status, 2);
  EXPECT_EQ(mimo_data(dir, "--version").text.substr(0, 12), "mimo-data 1.");
  const Outcome help = mimo_data(dir, "--help");
  EXPECT_EQ(help.status, 0);
  EXPECT_CONTAINS(help.text, "examples:");
}

}  // namespace
}  // namespace mimo
