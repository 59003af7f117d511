// How stored items become rows: shapes of any kind, statistics by channel, order of patches, positions of rows.
#include <gtest/gtest.h>

#include "data/decoder.h"
#include "data/pack.h"
#include "data/write_dataset.h"
#include "tests/data/tiny.h"

namespace mimo {
namespace {

Sample::Item item_of(int modality, ItemShape shape, int position = 0) {
  Sample::Item item{position, modality, shape, {}};
  for (int64_t i = 0; i < shape.numel(); ++i) item.bytes.push_back(static_cast<uint8_t>(i * 7 + modality));
  return item;
}

Sample with(std::vector<Sample::Item> items, int tokens) {
  Sample s{std::vector<int32_t>(static_cast<size_t>(tokens), 'x'), {}, std::move(items), 0, 0};
  s.counted.assign(s.tokens.size(), 0);
  s.counted.back() = 1;
  return s;
}

PackedBatch pack_one(const Sample& s, const Preprocessing& p, int axes = 1) {
  return pack({s}, {.modalities = {p}, .position_axes = axes}, {true});
}

// Against the definition: feature (c, t, y, x) of patch (i, j, k) is the number at (c, i pt + t, j p + y, k p + x).
TEST(Preprocessing, PatchesOfVideosClipsAndImages) {
  struct Case {
    ItemShape shape;
    int patch_time, patch;
  };
  for (const Case& c : {Case{{3, 1, 4, 6}, 1, 2},
                        {{2, 4, 4, 2}, 2, 2},
                        {{1, 6, 2, 4}, 3, 1},
                        {{5, 12, 1, 1}, 4, 1},
                        {{1, 7, 1, 1}, 1, 1}}) {
    Preprocessing p = image_patches({.name = "m", .channels = c.shape.channels}, c.patch);
    p.patch_time = c.patch_time;
    for (int channel = 1; channel < c.shape.channels; ++channel) {
      p.mean.push_back(0.1 * channel);
      p.std.push_back(1 + channel);
    }
    const Sample s = with({item_of(0, c.shape)}, 2);
    const PackedBatch b = pack_one(s, p);
    const int times = c.shape.time / c.patch_time, rows = c.shape.height / c.patch,
              columns = c.shape.width / c.patch;
    EXPECT_EQ(b.items[0].sizes, (std::vector<int32_t>{times, rows, columns}));
    EXPECT_EQ(b.items[0].cu_items, (std::vector<int32_t>{0, times * rows * columns}));
    EXPECT_EQ(b.items[0].rows.size(), static_cast<size_t>(times * rows * columns));
    ASSERT_EQ(b.items[0].patches.shape(), (Dims{times * rows * columns, p.features()}));
    const std::vector<float> found = b.items[0].patches.to_vector<float>();
    size_t n = 0;
    for (int i = 0; i < times; ++i)
      for (int j = 0; j < rows; ++j)
        for (int k = 0; k < columns; ++k)
          for (int channel = 0; channel < c.shape.channels; ++channel)
            for (int t = 0; t < c.patch_time; ++t)
              for (int y = 0; y < c.patch; ++y)
                for (int x = 0; x < c.patch; ++x) {
                  const int at =
                      ((channel * c.shape.time + i * c.patch_time + t) * c.shape.height + j * c.patch + y) *
                          c.shape.width +
                      k * c.patch + x;
                  const size_t m = static_cast<size_t>(channel);
                  ASSERT_EQ(found[n++],
                            static_cast<float>(
                                (s.items[0].bytes[static_cast<size_t>(at)] / 255.0 - p.mean[m]) / p.std[m]));
                }
  }
}

TEST(Preprocessing, MergedOrderPutsThePatchesOfARowTogether) {
  Preprocessing p = image_patches({.name = "image"}, 1, 2);
  p.std = {1 / 255.0};
  Sample s = with({item_of(0, {1, 1, 2, 4})}, 2);
  s.items[0].bytes = {0, 1, 2, 3, 4, 5, 6, 7};
  const auto found = [&] {
    std::vector<int> out;
    for (float x : pack_one(s, p).items[0].patches.to_vector<float>())
      out.push_back(static_cast<int>(x + 0.5f));
    return out;
  };
  EXPECT_EQ(found(), (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
  p.merged_order = true;
  EXPECT_EQ(found(), (std::vector<int>{0, 1, 4, 5, 2, 3, 6, 7}));
}

// Text of 2, a video of 3 frames of 2 x 4 rows, text of 2; then an image of 3 x 1 rows. By hand.
TEST(Preprocessing, PositionsOfThreeAxes) {
  const Preprocessing p = image_patches({.name = "image"}, 2);
  const Sample s = with({item_of(0, {1, 3, 4, 8}, 2), item_of(0, {1, 1, 6, 2}, 5)}, 8);
  const PackedBatch b = pack_one(s, p, 3);
  std::vector<int32_t> expected{0, 0, 0, 1, 1, 1};
  for (int t = 0; t < 3; ++t)
    for (int y = 0; y < 2; ++y)
      for (int x = 0; x < 4; ++x) expected.insert(expected.end(), {2 + t, 2 + y, 2 + x});
  for (int p6 : {6, 7}) expected.insert(expected.end(), 3, p6);
  for (int y = 0; y < 3; ++y) expected.insert(expected.end(), {8, 8 + y, 8});
  expected.insert(expected.end(), 3, 11);
  EXPECT_EQ(b.position_axes, 3);
  EXPECT_EQ(b.positions, expected);
  EXPECT_EQ(b.positions.size(), 3 * b.tokens.size());
  EXPECT_EQ(pack_one(s, p).positions.back(), 2 + 24 + 2 + 3 + 1 - 1);
  // The rows of a merged grid.
  const PackedBatch merged =
      pack_one(with({item_of(0, {1, 1, 4, 8})}, 3), image_patches({.name = "image"}, 2, 2), 3);
  EXPECT_EQ(merged.positions, (std::vector<int32_t>{0, 0, 0, 0, 0, 1, 2, 2, 2}));
}

TEST(Preprocessing, NearestSizes) {
  Preprocessing p = image_patches({.name = "image"}, 2, 2);
  p.resize = Resize::round;
  const auto size = [&](int height, int width) {
    const ItemSize s = item_size(p, {1, 1, height, width});
    return std::vector<int>{s.height, s.width, s.rows};
  };
  EXPECT_EQ(size(8, 12), (std::vector<int>{4, 6, 6}));
  EXPECT_EQ(size(9, 5), (std::vector<int>{4, 2, 2}));
  EXPECT_EQ(size(10, 1), (std::vector<int>{6, 2, 3}));  // halves go up, nothing vanishes
  // What is packed is what the sizes say: the image resized.
  Sample s = with({item_of(0, {1, 1, 3, 9})}, 2);
  const PackedBatch b = pack_one(s, p);
  const Image image = resize(s.items[0].image(), 4, 8);
  Sample resized = with({}, 2);
  resized.add(0, 0, image);
  p.resize = Resize::keep;
  EXPECT_EQ(b.items[0].patches.to_vector<float>(), pack_one(resized, p).items[0].patches.to_vector<float>());
  EXPECT_EQ(b.items[0].sizes, (std::vector<int32_t>{1, 2, 4}));
}

TEST(Preprocessing, Refuses) {
  const Modality m{.name = "clip", .channels = 2};
  const auto message = [&](Preprocessing p, ItemShape shape) {
    return thrown<ConfigError>([&] { item_size(p, shape); });
  };
  Preprocessing p = image_patches(m, 1);
  p.patch_time = 4;
  EXPECT_CONTAINS(message(p, {2, 6, 1, 1}),
                  "[clip] patches do not divide an item: expected a multiple of 4 in time");
  EXPECT_CONTAINS(message(p, {1, 8, 1, 1}), "expected items of 2 channels, found 1");
  EXPECT_CONTAINS(message(p, {2, 1 << 28, 1, 1}), "too many patches");
  p.decoder = "telepathy";
  EXPECT_CONTAINS(message(p, {2, 8, 1, 1}), "no such decoder: expected one of pixels, found telepathy");
}

// Three modalities of other ranks and channels in one file: it comes back as it was, sizes and statistics too.
TEST(Preprocessing, ADatasetOfItemsOfAllRanks) {
  TempDir dir;
  const DatasetHeader header{
      .vocab = 300,
      .modalities = {{.name = "image", .channels = 3, .mean = {0.1, 0.2, 0.3}, .std = {1, 2, 3}},
                     {.name = "video", .channels = 1, .mean = {0.5}, .std = {0.25}},
                     {.name = "sound", .channels = 2, .mean = {0, 0.125}, .std = {4, 5}}},
      .kinds = {"all"},
      .tokenizer = "bytes\n<go>\n<image>\n<video>\n<sound>\n",
      .prompt = {"<go>{prompt}{media}", "what?", "\n"},
      .task = "exact_match"};
  const auto make = [](int64_t i) {
    const int n = static_cast<int>(i);
    return with(
        {item_of(0, {3, 1, 4, 8}, 0), item_of(1, {1, 2 + 2 * n, 4, 4}, 1), item_of(2, {2, 8, 1, 1}, 2)}, 5);
  };
  write_dataset(dir / "a.h5", header, {{"train", 3, 3, make}, {"heldout", 1, 1, make}});
  const auto d = open_dataset(dir / "a.h5");
  ASSERT_EQ(d->header.modalities.size(), 3u);
  for (size_t m = 0; m < 3; ++m) {
    const Modality &a = d->header.modalities[m], &b = header.modalities[m];
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.channels, b.channels);
    EXPECT_EQ(a.mean, b.mean);
    EXPECT_EQ(a.std, b.std);
  }
  EXPECT_EQ(d->tokenizer->special("<sound>"), 259);
  EXPECT_EQ(d->header.prompt.text, "<go>{prompt}{media}");
  EXPECT_EQ(d->header.prompt.prompt, "what?");
  EXPECT_EQ(d->header.prompt.stop, "\n");
  for (int64_t i = 0; i < 3; ++i) {
    const Sample a = d->train.read(i), b = make(i);
    ASSERT_EQ(a.items.size(), 3u);
    for (size_t k = 0; k < 3; ++k) {
      EXPECT_TRUE(a.items[k].shape == b.items[k].shape);
      EXPECT_EQ(a.items[k].bytes, b.items[k].bytes);
    }
  }
  Preprocessing sound = image_patches(header.modalities[2], 1);
  sound.patch_time = 4;
  const std::vector<Preprocessing> all{image_patches(header.modalities[0], 4),
                                       image_patches(header.modalities[1], 2, 2), sound};
  d->train.prepare(all, 100);
  const SampleSizes z = d->train.sizes(1);
  EXPECT_EQ(z.items[0][0].rows, 2);
  EXPECT_EQ(z.items[1][0].time, 4);
  EXPECT_EQ(z.items[1][0].rows, 4);
  EXPECT_EQ(z.items[2][0].time, 2);
  EXPECT_EQ(z.tokens, 4 - 3 + 2 + 4 + 2);
  const PackedBatch b = pack(d->train, {.modalities = all}, {1}, {true, true, true});
  EXPECT_EQ(static_cast<int32_t>(b.tokens.size()), z.tokens);
  EXPECT_EQ(b.items[2].patches.shape(), (Dims{2, 8}));
}

TEST(Preprocessing, DamagedHeadersOfModalities) {
  TempDir dir;
  const auto refusal = [&](const std::function<void(h5::File&)>& change) {
    RawFile raw;
    raw.modalities = "image\nvideo";
    raw.last = change;
    raw.write(dir / "a.h5");
    return thrown<ConfigError>([&] { open_dataset(dir / "a.h5"); });
  };
  EXPECT_CONTAINS(refusal([](h5::File& f) {
                    f.set_attribute("channels", std::vector<int64_t>{1, 1, 1});
                  }),
                  "attribute channels: expected one number, or 2, found 3");
  EXPECT_CONTAINS(refusal([](h5::File& f) {
                    f.set_attribute("std", std::vector<double>{1, 1, 1});
                  }),
                  "attribute std: expected one number, or 2, found 3");
  EXPECT_CONTAINS(refusal([](h5::File& f) {
                    f.set_attribute("std", std::vector<double>{1, 0});
                  }),
                  "found std 0");
  EXPECT_CONTAINS(refusal([](h5::File& f) { f.set_attribute("tokenizer", "words\n"); }),
                  "unknown tokenizer: expected one of bytes, found \"words\"");
  EXPECT_CONTAINS(refusal([](h5::File& f) { f.set_attribute("tokenizer", "bytes\n\n"); }),
                  "found an empty line");
  EXPECT_CONTAINS(refusal([](h5::File& f) { f.set_attribute("stop", "\xff"); }),
                  "attribute stop: expected UTF-8");
  RawFile raw;
  raw.train.items = {1, 0, 0, 8, 16, 0, 0, 1, 8, 8, 2, 0, 1, 16, 8, 2, 0, 1, 8, 8};
  raw.train.items_shape = {4, 5};
  raw.write(dir / "a.h5");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { open_dataset(dir / "a.h5"); }), "expected a time of 1 to");
}

}  // namespace
}  // namespace mimo
