#include "data/dataset.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <thread>

#include "data/random.h"
#include "data/write_dataset.h"
#include "io/file.h"
#include "tests/data/tiny.h"

namespace mimo {
namespace {

// Samples of every form: ragged texts, no image to three, colours.
Sample make_random_sample(int64_t i) {
  RandomStream random(1, "sample", static_cast<uint32_t>(i));
  Sample s;
  const int images = static_cast<int>(i % 4);
  for (int n = 0; n < images; ++n) {
    for (uint32_t k = random.below(3); k > 0; --k) s.tokens.push_back('x');
    Image image{
        3, static_cast<int>(4 * (1 + random.below(3))), static_cast<int>(4 * (1 + random.below(5))), {}};
    for (int p = 0; p < 3 * image.height * image.width; ++p)
      image.pixels.push_back(static_cast<uint8_t>(random.bits()));
    s.add(static_cast<int>(s.tokens.size()), 0, std::move(image));
    s.tokens.push_back(kImage);
  }
  for (uint32_t k = 2 + random.below(5); k > 0; --k)
    s.tokens.push_back(static_cast<int32_t>(random.below(256)));
  for (int32_t t : s.tokens) s.counted.push_back(t != kImage && random.below(2));
  s.kind = static_cast<int>(i % 2);
  s.length = images;
  return s;
}

const Modality kImages{.name = "image", .channels = 3, .mean = {0.25, 0.25, 0.25}, .std = {0.5, 0.5, 0.5}};
const DatasetHeader kHeader{
    .vocab = kVocab, .modalities = {kImages}, .kinds = {"even", "odd"}, .license = "free"};

void expect_same(const Sample& a, const Sample& b, bool pixels = true) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.counted, b.counted);
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.length, b.length);
  ASSERT_EQ(a.items.size(), b.items.size());
  for (size_t i = 0; i < a.items.size(); ++i) {
    EXPECT_EQ(a.items[i].position, b.items[i].position);
    EXPECT_EQ(a.items[i].modality, b.items[i].modality);
    EXPECT_TRUE(a.items[i].shape == b.items[i].shape);
    EXPECT_EQ(a.items[i].bytes, pixels ? b.items[i].bytes : std::vector<uint8_t>{});
  }
}

TEST(Dataset, RoundTrip) {
  TempDir dir;
  // 700 samples: the pixels fill more than one chunk.
  write_dataset(dir / "a.h5", kHeader,
                {{"train", 700, 5, make_random_sample},
                 {"heldout", 9, 9, [](int64_t i) { return make_random_sample(1000 + i); }}});
  const auto d = open_dataset(dir / "a.h5");
  EXPECT_EQ(d->header.vocab, kHeader.vocab);
  EXPECT_TRUE(d->header.modalities == kHeader.modalities);
  EXPECT_EQ(d->header.kinds, kHeader.kinds);
  EXPECT_EQ(d->header.license, "free");
  ASSERT_EQ(d->train.samples(), 700);
  ASSERT_EQ(d->heldout.samples(), 9);
  EXPECT_EQ(d->train.headline(), 5);
  EXPECT_EQ(d->heldout.headline(), 9);
  for (int64_t i = 0; i < 700; ++i) expect_same(d->train.read(i), make_random_sample(i));
  for (int64_t i = 0; i < 9; ++i) expect_same(d->heldout.read(i, false), make_random_sample(1000 + i), false);
}

TEST(Dataset, EmptySplitsAndSplitsOfTextAlone) {
  TempDir dir;
  write_dataset(
      dir / "a.h5", kHeader,
      {{"train", 3, 0, [](int64_t i) { return make_random_sample(4 * i); }}, {"heldout", 0, 0, {}}});
  const auto d = open_dataset(dir / "a.h5");
  d->train.prepare({cut_images(4, 1, kImages)}, 100);
  EXPECT_TRUE(d->train.sizes(2).items.at(0).empty());
  expect_same(d->train.read(1), make_random_sample(4));
  EXPECT_EQ(d->heldout.samples(), 0);
  d->heldout.prepare({cut_images(4, 1, kImages)}, 0);
}

TEST(Dataset, SizesFollowFromTheCut) {
  TempDir dir;
  RawFile().write(dir / "a.h5");
  const auto d = open_dataset(dir / "a.h5");
  Split& s = d->train;
  s.prepare({cut_images(4)}, 17);
  // Text of 8, less its last token; images of 4 and 8 rows in the place of 1 token each.
  SampleSizes z = s.sizes(2);
  EXPECT_EQ(z.tokens, 7 - 2 + 4 + 8);
  EXPECT_EQ(z.counted, 4);
  ASSERT_EQ(z.items.size(), 1u);
  ASSERT_EQ(z.items[0].size(), 2u);
  EXPECT_EQ(z.items[0][0].height, 2);
  EXPECT_EQ(z.items[0][0].width, 2);
  EXPECT_EQ(z.items[0][1].height, 4);
  EXPECT_EQ(z.items[0][1].width, 2);
  EXPECT_EQ(z.items[0][1].rows, 8);
  EXPECT_EQ(s.sizes(1).tokens, 6);
  EXPECT_EQ(s.sizes(1).counted, 2);
  EXPECT_TRUE(s.sizes(1).items.at(0).empty());
  s.prepare({cut_images(4, 2)}, 14);
  z = s.sizes(2);
  EXPECT_EQ(z.tokens, 7 - 2 + 1 + 2);
  EXPECT_EQ(z.items[0][1].height, 4);
  EXPECT_EQ(z.items[0][1].rows, 2);
  EXPECT_EQ(s.kind(2), 1);
  EXPECT_EQ(s.length(0), 2);
}

TEST(Dataset, CutsThatDoNotFit) {
  TempDir dir;
  RawFile().write(dir / "a.h5");
  const auto d = open_dataset(dir / "a.h5");
  const auto message = [&](int patch, int merge, int64_t seq_length) {
    return thrown<ConfigError>([&] { d->train.prepare({cut_images(patch, merge)}, seq_length); });
  };
  EXPECT_CONTAINS(message(3, 1, 99),
                  "a.h5:/train/items] patches do not divide an item: expected height and width to be "
                  "multiples of 3, found 8 x 16. hint: choose another patch size");
  EXPECT_CONTAINS(message(8, 2, 99), "multiples of 16, found 8 x 16");
  EXPECT_CONTAINS(
      message(4, 1, 16),
      "[data.seq_length] a sample of " + (dir / "a.h5").string() +
          ":/train is longer: expected at most 16 tokens, found 17 in sample 2, the longest. hint: raise "
          "data.seq_length to 17");
  EXPECT_EQ(message(4, 1, 17), "nothing was thrown");
  EXPECT_THROW(d->train.read(4), std::exception);
  EXPECT_THROW(d->train.read(-1), std::exception);
}

TEST(Dataset, ReadsArraysWhereTheyLieFromManyThreads) {
  TempDir dir;
  const RawFile raw;
  raw.write(dir / "a.h5");
  const auto kept = open_dataset(dir / "a.h5"), there = open_dataset(dir / "a.h5", 0);
  EXPECT_TRUE(kept->train.in_memory());
  EXPECT_FALSE(there->train.in_memory());
  expect_same(there->train.read(2), kept->train.read(2));
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        const int64_t s = (i * 7 + static_cast<int64_t>(t)) % 4;
        const Sample a = there->train.read(s), b = kept->train.read(s);
        wrong[t] += a.tokens != b.tokens || a.counted != b.counted || a.items.size() != b.items.size();
        for (size_t k = 0; k < std::min(a.items.size(), b.items.size()); ++k)
          wrong[t] += a.items[k].bytes != b.items[k].bytes;
      }
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
  EXPECT_EQ(kept->train.read(0).items.at(0).bytes,
            std::vector<uint8_t>(raw.train.pixels.begin(), raw.train.pixels.begin() + 128));
}

TEST(Dataset, TheDigestIsOfTheContent) {
  TempDir dir;
  const auto digest = [&](const std::function<void(RawFile&)>& change, int64_t keep_bytes = 1 << 20) {
    RawFile raw;
    change(raw);
    raw.write(dir / "a.h5");
    return open_dataset(dir / "a.h5", keep_bytes)->digest;
  };
  const std::string plain = digest([](RawFile&) {});
  EXPECT_EQ(digest([](RawFile&) {}, 0), plain) << "read where it lies";
  EXPECT_EQ(digest([](RawFile& f) { f.last = [](h5::File& h) { h.set_attribute("more", "text"); }; }), plain);
  const auto d = open_dataset(dir / "a.h5");
  write_dataset(dir / "compressed.h5", d->header,
                {{"train", 4, 2, [&](int64_t i) { return d->train.read(i); }},
                 {"heldout", 4, 2, [&](int64_t i) { return d->heldout.read(i); }}});
  EXPECT_EQ(open_dataset(dir / "compressed.h5")->digest, plain);

  std::set<std::string> all{plain};
  const std::vector<std::function<void(RawFile&)>> changes = {
      [](RawFile& f) { f.vocab = 300; },
      [](RawFile& f) { f.mean = {0.25}; },
      [](RawFile& f) { f.std = {std::nextafter(0.25, 1)}; },
      [](RawFile& f) { f.modalities = "picture"; },
      [](RawFile& f) { f.kinds = "one\ntwo\nwords"; },
      [](RawFile& f) { f.train.tokens[3] = '7'; },
      [](RawFile& f) { f.train.counted[3] = 0; },
      [](RawFile& f) {
        f.train.token_offsets = {0, 6, 13, 20, 26}, f.train.items[12] = 3;
      },
      [](RawFile& f) { f.train.items[2] = 16, f.train.items[3] = 8; },
      [](RawFile& f) { f.train.pixels.back() ^= 1; },
      [](RawFile& f) { f.train.kind[0] = 1; },
      [](RawFile& f) { f.train.length[0] = 3; },
      [](RawFile& f) { f.train.headline = 1; },
      [](RawFile& f) { f.heldout.pixels.front() ^= 1; },
  };
  for (const auto& change : changes) all.insert(digest(change));
  EXPECT_EQ(all.size(), changes.size() + 1);
}

TEST(Dataset, TheDigestOfALargeArraySamplesIt) {
  TempDir dir;
  const auto digest = [&](size_t bytes, size_t altered, int64_t keep_bytes) {
    std::vector<uint8_t> values(bytes);
    for (size_t i = 0; i < bytes; ++i) values[i] = static_cast<uint8_t>(i >> 7);
    values[altered] ^= 1;
    h5::File::create(dir / "a.h5").write("x", values);
    const h5::File file = h5::File::open(dir / "a.h5");
    return FlatArray(file.dataset("x"), dir / "a.h5", keep_bytes).digest();
  };
  const size_t large = (65 << 20) + 3;
  const std::string first = digest(large, 0, 0);
  EXPECT_EQ(digest(large, 0, int64_t{1} << 30), first) << "in memory";
  EXPECT_NE(digest(large, 100, 0), first);
  EXPECT_NE(digest(large, large / 2, 0), first);
  EXPECT_NE(digest(large + 1, 0, 0), first);
}

TEST(Dataset, AFileThatShrinksIsAnError) {
  TempDir dir;
  RawFile().write(dir / "a.h5");
  const auto there = open_dataset(dir / "a.h5", 0);
  std::filesystem::resize_file(dir / "a.h5", 100);
  EXPECT_CONTAINS(thrown<std::runtime_error>([&] { there->heldout.read(3); }), "the file has become shorter");
}

std::string refusal(const TempDir& dir, const RawFile& raw) {
  raw.write(dir / "a.h5");
  return thrown<ConfigError>([&] { open_dataset(dir / "a.h5"); });
}

TEST(Dataset, RefusesForeignFiles) {
  TempDir dir;
  EXPECT_CONTAINS(thrown<ConfigError>([&] { open_dataset(dir / "none.h5"); }), "none.h5] no such file");
  write_text(dir / "text.h5", "not HDF5 at all");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { open_dataset(dir / "text.h5"); }), "text.h5] not HDF5");
  write_text(dir / "empty.h5", "");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { open_dataset(dir / "empty.h5"); }), "empty.h5] not HDF5");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { open_dataset(dir.path()); }), "found a directory");
  RawFile raw;
  raw.format = "other";
  EXPECT_CONTAINS(
      refusal(dir, raw),
      "a.h5] not a dataset of this program: expected format mimo-dataset, found other. hint: make");
  raw = {};
  raw.version = 2;
  EXPECT_CONTAINS(refusal(dir, raw), "expected 1, found 2. hint: the file is newer than this program");
  h5::File::create(dir / "bare.h5").close();
  EXPECT_CONTAINS(thrown<ConfigError>([&] { open_dataset(dir / "bare.h5"); }), "found none");
}

TEST(Dataset, RefusesTruncatedFiles) {
  TempDir dir;
  write_dataset(dir / "a.h5", kHeader,
                {{"train", 60, 5, make_random_sample}, {"heldout", 9, 9, make_random_sample}});
  RawFile().write(dir / "b.h5");
  for (const char* name : {"a.h5", "b.h5"}) {
    const auto size = std::filesystem::file_size(dir / name);
    for (auto length :
         {size - 1, size - 100, size / 2, size / 3, size / 10, decltype(size){600}, decltype(size){40}}) {
      std::filesystem::copy_file(dir / name, dir / "cut.h5",
                                 std::filesystem::copy_options::overwrite_existing);
      std::filesystem::resize_file(dir / "cut.h5", length);
      EXPECT_CONTAINS(thrown<ConfigError>([&] { open_dataset(dir / "cut.h5"); }), "cut.h5") << length;
    }
  }
}

TEST(Dataset, RefusesBadHeaders) {
  TempDir dir;
  const auto header = [&](auto change) {
    RawFile raw;
    change(raw);
    return refusal(dir, raw);
  };
  EXPECT_CONTAINS(header([](RawFile& f) { f.vocab = 0; }), "bad header");
  EXPECT_CONTAINS(header([](RawFile& f) { f.channels = 0; }), "1 to 1024 channels, found 0");
  EXPECT_CONTAINS(header([](RawFile& f) { f.channels = int64_t{1} << 40; }), "1 to 1024 channels");
  EXPECT_CONTAINS(header([](RawFile& f) { f.std = {1e-50}; }), "std from 1e-6 to 1e6; found std 1e-50");
  EXPECT_CONTAINS(header([](RawFile& f) { f.mean = {1e300}; }), "found mean 1e+300");
  EXPECT_CONTAINS(header([](RawFile& f) { f.std = {NAN}; }), "attribute std: expected finite numbers");
  EXPECT_CONTAINS(header([](RawFile& f) { f.mean = {}; }), "attribute mean: expected one number, found 0");
  EXPECT_CONTAINS(header([](RawFile& f) { f.train.samples = -1; }), "a.h5:/train] bad attributes");
  EXPECT_CONTAINS(
      header([](RawFile& f) { f.heldout.headline = 5; }),
      "a.h5:/heldout] bad attributes: expected 0 <= headline <= samples, found headline 5, samples 4");
}

TEST(Dataset, RefusesDamagedArrays) {
  TempDir dir;
  const auto heldout = [&](auto change) {
    RawFile raw;
    change(raw.heldout);
    return refusal(dir, raw);
  };
  using S = RawSplit;
  EXPECT_EQ(heldout([](S&) {}), "nothing was thrown");
  for (const char* name : {"tokens", "counted", "token_offsets", "items", "item_offsets", "pixels",
                           "pixel_offsets", "kind", "length"})
    EXPECT_CONTAINS(heldout([&](S& s) { s.leave_out = name; }),
                    std::string("a.h5:/heldout/") + name + "] missing: expected a dataset");
  // Lengths
  EXPECT_CONTAINS(heldout([](S& s) { s.samples = 5; }),
                  "/heldout/kind] the dataset is inconsistent: expected u8 [5], found u8 [4]");
  EXPECT_CONTAINS(heldout([](S& s) { s.samples = 3; }),
                  "/heldout/kind] the dataset is inconsistent: expected u8 [3]");
  EXPECT_CONTAINS(heldout([](S& s) { s.length.pop_back(); }), "/heldout/length] the dataset is inconsistent");
  EXPECT_CONTAINS(heldout([](S& s) { s.counted.pop_back(); }),
                  "/heldout/counted] the dataset is inconsistent: expected u8 [26], found u8 [25]");
  EXPECT_CONTAINS(heldout([](S& s) { s.tokens.push_back(1); }),
                  "/heldout/tokens] the dataset is inconsistent");
  EXPECT_CONTAINS(heldout([](S& s) { s.pixels.pop_back(); }),
                  "/heldout/pixels] the dataset is inconsistent: expected u8 [384], found u8 [383]");
  EXPECT_CONTAINS(heldout([](S& s) { s.items_shape = {16}; }),
                  "/heldout/items] the dataset is inconsistent: expected i32 [4, 4], found i32 [16]");
  EXPECT_CONTAINS(heldout([](S& s) {
                    s.items_shape = {2, 8};
                  }),
                  "/heldout/items] the dataset is inconsistent");
  EXPECT_CONTAINS(heldout([](S& s) { s.token_offsets.pop_back(); }),
                  "/heldout/token_offsets] the dataset is inconsistent: expected i64 [5], found i64 [4]");
  // Offsets
  EXPECT_CONTAINS(heldout([](S& s) { s.token_offsets[2] = 3; }),
                  "/heldout/token_offsets] the dataset is inconsistent: expected offsets rising from 0, "
                  "found 6 before 3");
  EXPECT_CONTAINS(heldout([](S& s) { s.token_offsets[0] = 1; }), "rising from 0, found 1 first");
  EXPECT_CONTAINS(heldout([](S& s) { s.token_offsets[0] = -1; }), "/heldout/token_offsets");
  EXPECT_CONTAINS(heldout([](S& s) { s.token_offsets[4] = int64_t{1} << 60; }),
                  "/heldout/tokens] the dataset is inconsistent");
  EXPECT_CONTAINS(heldout([](S& s) { s.item_offsets[3] = 9; }),
                  "/heldout/item_offsets] the dataset is inconsistent");
  EXPECT_CONTAINS(heldout([](S& s) { s.item_offsets[4] = INT64_MAX; }), "/heldout/");
  EXPECT_CONTAINS(heldout([](S& s) { s.pixel_offsets[1] = 500; }),
                  "/heldout/pixel_offsets] the dataset is inconsistent");
  EXPECT_CONTAINS(heldout([](S& s) { s.pixel_offsets[1] = 127; }),
                  "/heldout/pixel_offsets] the dataset is inconsistent: sample 0, item 0: expected 1 x 8 x "
                  "16 pixels, found 127");
  EXPECT_CONTAINS(heldout([](S& s) { s.token_offsets[1] = 1, s.counted[0] = 0; }),
                  "expected at least 2 tokens, found 1");
  // Values
  EXPECT_CONTAINS(
      heldout([](S& s) { s.tokens[7] = 259; }),
      "/heldout/tokens] the dataset is inconsistent: sample 1: expected tokens below 259, found 259");
  EXPECT_CONTAINS(heldout([](S& s) { s.tokens[7] = -1; }), "/heldout/tokens");
  EXPECT_CONTAINS(heldout([](S& s) { s.kind[3] = 3; }),
                  "/heldout/kind] the dataset is inconsistent: sample 3: expected a kind below 3, found 3");
  EXPECT_CONTAINS(heldout([](S& s) { s.counted[1] = 1; }),
                  "/heldout/counted] the dataset is inconsistent: sample 0, item 0: expected a place that "
                  "does not count");
  EXPECT_CONTAINS(heldout([](S& s) { s.items[0] = 6; }),
                  "/heldout/items] the dataset is inconsistent: sample 0, item 0: expected a place after -1 "
                  "and before the last token, 5, found 6");
  EXPECT_CONTAINS(heldout([](S& s) { s.items[0] = 5; }), "before the last token, 5, found 5");
  EXPECT_CONTAINS(heldout([](S& s) { s.items[0] = -1; }), "found -1");
  EXPECT_CONTAINS(heldout([](S& s) { s.items[0] = INT32_MAX; }), "/heldout/items");
  EXPECT_CONTAINS(heldout([](S& s) { s.items[8] = 0; }), "sample 2, item 1: expected a place after 0");
  EXPECT_CONTAINS(heldout([](S& s) { s.items[1] = 1; }), "expected a modality below 1, found 1");
  EXPECT_CONTAINS(heldout([](S& s) { s.items[1] = -1; }), "expected a modality below 1, found -1");
  EXPECT_CONTAINS(heldout([](S& s) { s.items[2] = 0; }),
                  "expected height and width of 1 to 1048576, found 0 x 16");
  EXPECT_CONTAINS(heldout([](S& s) { s.items[2] = s.items[3] = INT32_MAX; }),
                  "expected height and width of 1 to 1048576");
  EXPECT_CONTAINS(heldout([](S& s) { s.items[2] = 16; }), "expected 1 x 16 x 16 pixels, found 128");
}

TEST(Dataset, RefusesLabelsThatNeverCount) {
  TempDir dir;
  RawFile raw;
  std::fill(raw.train.counted.begin(), raw.train.counted.end(), 0);
  EXPECT_CONTAINS(
      refusal(dir, raw),
      "/train/counted] the dataset is inconsistent: expected labels that count, found none in 4 samples");
  raw.train.counted[6] = 1;  // a sample's first token is no label
  EXPECT_CONTAINS(refusal(dir, raw), "found none in 4 samples");
  raw.train.counted[7] = 1;
  EXPECT_EQ(refusal(dir, raw), "nothing was thrown");
}

// HDF5 would show zeros: black images, labels that are bytes 0.
TEST(Dataset, RefusesArraysThatWereNeverWritten) {
  TempDir dir;
  RawFile raw;
  raw.heldout.leave_out = "pixels";
  raw.last = [](h5::File& f) { f.group("heldout").create_dataset("pixels", DType::u8, {384}); };
  EXPECT_CONTAINS(refusal(dir, raw), "/heldout/pixels] never written");
  raw.last = [](h5::File& f) {
    const std::vector<uint8_t> some(100, 1);
    f.group("heldout")
        .create_dataset("pixels", DType::u8, {384}, 100)
        .write({{0}, {100}}, DType::u8, some.data());
  };
  EXPECT_CONTAINS(refusal(dir, raw), "/heldout/pixels] parts were never written: expected 4 chunks, found 1");
}

// A file of a few KB claims 2^40 samples: as HDF5 keeps what was not written, and as a file system keeps
// holes.
TEST(Dataset, RefusesClaimsBeyondTheMemory) {
  TempDir dir;
  RawFile raw;
  raw.train.samples = int64_t{1} << 40;
  raw.train.leave_out = "kind";
  raw.last = [](h5::File& f) { f.group("train").create_dataset("kind", DType::u8, {int64_t{1} << 40}); };
  const std::string message = refusal(dir, raw);
  EXPECT_CONTAINS(message, "a.h5:/train] too large for this machine's memory");
  EXPECT_CONTAINS(message, "1099511627776 of 22 bytes");
  RawFile items;
  items.train.item_offsets = {0, 1, 1, 3, int64_t{1} << 40};
  EXPECT_CONTAINS(refusal(dir, items), "/train/items] too large for this machine's memory");
}

TEST(Dataset, RefusesImagesOfTooManyPatches) {
  EXPECT_EQ(item_size(cut_images(1), {1, 1, 1 << 12, 1 << 12}).rows, 1 << 24);
  EXPECT_CONTAINS(thrown<ConfigError>([] {
                    item_size(cut_images(1), {1, 1, 1 << 17, 1 << 17}, "here");
                  }),
                  "[here] too many patches in an item: expected at most 16777216, found 131072 x 131072");
}

TEST(Dataset, IsWrittenBesideItsPath) {
  TempDir dir;
  write_text(dir / "a.h5", "what is there");
  const auto write = [&](int64_t samples) {
    write_dataset(dir / "a.h5", kHeader, {{"train", samples, 0, [&](int64_t i) {
                                             EXPECT_TRUE(read_text(dir / "a.h5") == "what is there");
                                             if (i == 2) throw std::runtime_error("a full disk");
                                             return make_random_sample(i);
                                           }}});
  };
  EXPECT_EQ(thrown<std::runtime_error>([&] { write(5); }), "a full disk");
  EXPECT_EQ(read_text(dir / "a.h5"), "what is there");
  EXPECT_FALSE(std::filesystem::exists(dir / "a.h5.tmp"));
  write(2);
  EXPECT_EQ(h5::File::open(dir / "a.h5").group("train").integer_attribute("samples"), 2);
  EXPECT_FALSE(std::filesystem::exists(dir / "a.h5.tmp"));
}

TEST(Dataset, RefusesArraysOfTheWrongType) {
  TempDir dir;
  // Wider elements would not fit where they are read to.
  RawFile raw;
  raw.heldout.leave_out = "tokens";
  raw.last = [](h5::File& f) { f.group("heldout").write("tokens", std::vector<int64_t>(26, 65)); };
  EXPECT_CONTAINS(refusal(dir, raw),
                  "/heldout/tokens] the dataset is inconsistent: expected i32 [26], found i64 [26]");
  raw.heldout.leave_out = "pixels";
  raw.last = [](h5::File& f) { f.group("heldout").write("pixels", std::vector<float>(384)); };
  EXPECT_CONTAINS(refusal(dir, raw),
                  "/heldout/pixels] the dataset is inconsistent: expected u8 [384], found f32 [384]");
  raw.heldout.leave_out = "kind";
  raw.last = [](h5::File& f) { f.create_group("heldout/kind"); };
  EXPECT_CONTAINS(refusal(dir, raw), "/heldout/kind] expected a dataset, found something else");
}

TEST(Dataset, WritingChecksSamples) {
  TempDir dir;
  const auto message = [&](auto change) {
    return thrown<std::logic_error>([&] {
      write_dataset(dir / "a.h5", kHeader, {{"train", 1, 0, [&](int64_t) {
                                               Sample s = make_random_sample(1);
                                               change(s);
                                               return s;
                                             }}});
    });
  };
  EXPECT_CONTAINS(message([](Sample& s) { s.counted.pop_back(); }), "one `counted` a token");
  EXPECT_CONTAINS(message([](Sample& s) { s.kind = 256; }), "bytes");
  EXPECT_CONTAINS(message([](Sample& s) { s.items[0].shape.channels = 1; }), "the dataset's channels");
  EXPECT_CONTAINS(thrown<std::runtime_error>([&] { write_dataset(dir / "no" / "a.h5", kHeader, {}); }),
                  "cannot create");
}

}  // namespace
}  // namespace mimo
