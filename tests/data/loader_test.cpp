#include "data/loader.h"

#include <gtest/gtest.h>

#include <numeric>

#include "data/write_dataset.h"
#include "tests/data/tiny.h"

namespace mimo {
namespace {

Image image_of(int channels, int height, int width, uint32_t name) {
  RandomStream random(1, "image", name);
  Image image{channels, height, width, {}};
  for (int i = 0; i < channels * height * width; ++i)
    image.pixels.push_back(static_cast<uint8_t>(random.bits()));
  return image;
}

Sample sample_of(const std::string& text, std::vector<Image> images) {
  Sample s;
  s.tokens = digits_tokenizer().encode(text);
  bool answer = false;
  for (size_t t = 0; t < s.tokens.size(); ++t) {
    s.counted.push_back(answer);
    answer = answer || s.tokens[t] == '=';
    if (s.tokens[t] == kImage) s.add(static_cast<int>(t), 0, images.at(s.items.size()));
  }
  return s;
}

DatasetHeader header_of(int channels) {
  return {.vocab = kVocab,
          .modalities = {{.name = "image", .channels = channels, .mean = {0.625}, .std = {0.25}}},
          .kinds = {"x"}};
}

Packing packing_of(int channels, int patch, int merge = 1, DType dtype = DType::f32) {
  return {.modalities = {cut_images(patch, merge, header_of(channels).modalities[0])}, .dtype = dtype};
}

// Text alone; an image first; two images of other sizes, the second just before the last token; no answer.
std::vector<Sample> ragged(int channels) {
  return {sample_of("1+1=2<end>", {}), sample_of("<image>=7<end>", {image_of(channels, 4, 4, 0)}),
          sample_of("a<image>bc<image><end>", {image_of(channels, 8, 4, 1), image_of(channels, 4, 12, 2)}),
          sample_of("xy", {}),
          sample_of("<image>,<image>=1,2<end>", {image_of(channels, 4, 8, 3), image_of(channels, 8, 8, 4)})};
}

// The definition, row by row: the stream of a sample is its tokens but the last, each item's repeated; the
// label of a row is the token that follows, where that counts and begins after this row.
struct Expected {
  std::vector<int32_t> tokens, positions, labels, cu_seqlens{0}, cu_items{0}, sizes, rows;
  int64_t counted = 0;
};
Expected expect(const std::vector<Sample>& samples, int patch, bool shuffle) {
  Expected e;
  for (const Sample& s : samples) {
    std::vector<int32_t> tokens, next;  // next: the token after this row, -1 within an item
    for (size_t t = 0; t + 1 < s.tokens.size(); ++t) {
      int rows = 1;
      for (const Sample::Item& it : s.items)
        if (it.position == static_cast<int>(t)) {
          const int h = it.shape.height / patch, w = it.shape.width / patch;
          rows = shuffle ? h / 2 * (w / 2) : h * w;
          e.sizes.insert(e.sizes.end(), {1, h, w});
          e.cu_items.push_back(e.cu_items.back() + h * w);
          for (int r = 0; r < rows; ++r)
            e.rows.push_back(e.cu_seqlens.back() + static_cast<int>(tokens.size()) + r);
        }
      tokens.insert(tokens.end(), static_cast<size_t>(rows), s.tokens[t]);
      next.insert(next.end(), static_cast<size_t>(rows - 1), -1);
      next.push_back(s.counted[t + 1] ? s.tokens[t + 1] : -1);
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
      e.tokens.push_back(tokens[i]);
      e.positions.push_back(static_cast<int32_t>(i));
      e.labels.push_back(next[i]);
      e.counted += next[i] >= 0;
    }
    e.cu_seqlens.push_back(static_cast<int32_t>(e.tokens.size()));
  }
  return e;
}

void expect_equal(const PackedBatch& b, const Expected& e) {
  EXPECT_EQ(b.tokens, e.tokens);
  EXPECT_EQ(b.positions, e.positions);
  EXPECT_EQ(b.labels, e.labels);
  EXPECT_EQ(b.cu_seqlens, e.cu_seqlens);
  EXPECT_EQ(b.counted, e.counted);
  ASSERT_EQ(b.items.size(), 1u);
  EXPECT_EQ(b.items[0].cu_items, e.cu_items);
  EXPECT_EQ(b.items[0].sizes, e.sizes);
  EXPECT_EQ(b.items[0].rows, e.rows);
}

TEST(Pack, RaggedSamples) {
  for (int channels : {1, 3})
    for (const auto& [patch, merge] : {std::pair{4, 1}, {2, 1}, {2, 2}, {1, 2}}) {
      const std::vector<Sample> samples = ragged(channels);
      expect_equal(pack(samples, packing_of(channels, patch, merge), {true}),
                   expect(samples, patch, merge == 2));
    }
}

TEST(Pack, ByHand) {
  const PackedBatch b = pack({sample_of("1=2<end>", {}), sample_of("<image>=7<end>", {image_of(1, 4, 8, 0)})},
                             packing_of(1, 4), {true});
  EXPECT_EQ(b.tokens, (std::vector<int32_t>{'1', '=', '2', 258, 258, '=', '7'}));
  EXPECT_EQ(b.positions, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 3}));
  EXPECT_EQ(b.labels, (std::vector<int32_t>{-1, '2', 257, -1, -1, '7', 257}));
  EXPECT_EQ(b.cu_seqlens, (std::vector<int32_t>{0, 3, 7}));
  EXPECT_EQ(b.counted, 4);
  EXPECT_EQ(b.items[0].cu_items, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(b.items[0].sizes, (std::vector<int32_t>{1, 1, 2}));
  EXPECT_EQ(b.items[0].rows, (std::vector<int32_t>{3, 4}));
}

// What follows an item may count: then its last row has the label, the others none.
TEST(Pack, OnlyTheLastRowOfAnItemHasALabel) {
  Sample s = sample_of("<image>b<end>", {image_of(1, 4, 16, 0)});
  s.counted = {0, 1, 1};
  const PackedBatch b = pack({s}, packing_of(1, 4), {false});
  EXPECT_EQ(b.labels, (std::vector<int32_t>{-1, -1, -1, 'b', 257}));
  EXPECT_EQ(b.counted, 2);
}

// Twice in double: x / 255 less the mean, over std, in the order of the patches, rounded once to float and
// that to the batch's type.
template <class T>
void check_patches(int channels, int patch, DType dtype) {
  const std::vector<Sample> samples = ragged(channels);
  const PackedBatch b = pack(samples, packing_of(channels, patch, 1, dtype), {true});
  const PackedItems& items = b.items[0];
  const int64_t features = int64_t{channels} * patch * patch;
  ASSERT_EQ(items.patches.shape(), (Dims{items.cu_items.back(), features}));
  ASSERT_EQ(items.patches.dtype(), dtype);
  const T* found = items.patches.data<T>();
  for (const Sample& s : samples)
    for (const Sample::Item& it : s.items) {
      const Image im = it.image();
      for (int py = 0; py < im.height / patch; ++py)
        for (int px = 0; px < im.width / patch; ++px)
          for (int c = 0; c < channels; ++c)
            for (int y = 0; y < patch; ++y)
              for (int x = 0; x < patch; ++x) {
                const int pixel = im.pixels[static_cast<size_t>((c * im.height + py * patch + y) * im.width +
                                                                px * patch + x)];
                const float value = static_cast<float>((pixel / 255.0 - 0.625) / 0.25);
                ASSERT_EQ(static_cast<float>(*found++), static_cast<float>(static_cast<T>(value)));
              }
    }
  EXPECT_EQ(found, items.patches.data<T>() + items.patches.numel());
}

TEST(Pack, PatchesAreThePixels) {
  check_patches<float>(1, 4, DType::f32);
  check_patches<float>(3, 2, DType::f32);
  check_patches<bf16>(1, 2, DType::bf16);
  check_patches<bf16>(3, 4, DType::bf16);
}

TEST(Pack, WithoutPixelsTheSizesStay) {
  std::vector<Sample> samples = ragged(1);
  const Expected e = expect(samples, 4, false);
  for (Sample& s : samples)
    for (Sample::Item& it : s.items) it.bytes.clear();
  const PackedBatch b = pack(samples, packing_of(1, 4), {false});
  expect_equal(b, e);
  EXPECT_FALSE(b.items[0].patches.defined());
  EXPECT_THROW(pack(samples, packing_of(1, 4), {true}), std::logic_error);
}

TEST(Pack, NoImagesAndNoSamples) {
  for (const std::vector<Sample>& samples : {std::vector<Sample>{}, {sample_of("1=2<end>", {})}}) {
    const PackedBatch b = pack(samples, packing_of(3, 4, 2), {true});
    expect_equal(b, expect(samples, 4, true));
    EXPECT_TRUE(b.items[0].patches.defined());
    EXPECT_EQ(b.items[0].patches.shape(), (Dims{0, 48}));
  }
}

TEST(Pack, RefusesWhatDoesNotFit) {
  const auto packed = [](const Sample& s, int patch, int merge) {
    pack({s}, packing_of(1, patch, merge), {true});
  };
  const Sample good = sample_of("<image>=7<end>", {image_of(1, 4, 12, 0)});
  EXPECT_CONTAINS(
      thrown<ConfigError>([&] { packed(good, 8, 1); }),
      "[image] patches do not divide an item: expected height and width to be multiples of 8, found 4 x 12");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { packed(good, 4, 2); }), "multiples of 8");
  Sample last = sample_of("1=<image>", {image_of(1, 4, 4, 0)});
  EXPECT_CONTAINS(thrown<std::logic_error>([&] { packed(last, 4, 1); }), "an item's place");
  Sample colours = sample_of("<image>=7<end>", {image_of(3, 4, 4, 0)});
  EXPECT_CONTAINS(thrown<ConfigError>([&] { packed(colours, 4, 1); }), "items of 1 channels, found 3");
}

// A dataset of eleven samples of the task's forms, and the file's order of them.
struct Fixture {
  TempDir dir;
  std::shared_ptr<DataFile> data;
  Packing packing = packing_of(1, 4);
  Fixture() {
    write_dataset(dir / "a.h5", header_of(1),
                  {{"train", 11, 0, [](int64_t i) { return ragged(1)[static_cast<size_t>(i % 5)]; }},
                   {"heldout", 0, 0, {}}});
    data = open_dataset(dir / "a.h5");
    data->train.prepare(packing.modalities, 100);
  }
  Loader loader(int workers) const { return {data->train, packing, workers}; }
};

TEST(Pack, MatchesTheSizesBeforehand) {
  const Fixture f;
  for (int64_t s = 0; s < 11; ++s) {
    const SampleSizes z = f.data->train.sizes(s);
    const PackedBatch b = pack(f.data->train, f.packing, {s}, {true});
    EXPECT_EQ(b.samples, std::vector<int64_t>{s});
    EXPECT_EQ(z.tokens, static_cast<int32_t>(b.tokens.size()));
    EXPECT_EQ(z.counted, b.counted);
    std::vector<int32_t> sizes;
    int rows = 0;
    for (const ItemSize& i : z.items.at(0))
      sizes.insert(sizes.end(), {i.time, i.height, i.width}), rows += i.rows;
    EXPECT_EQ(sizes, b.items[0].sizes);
    EXPECT_EQ(rows, static_cast<int>(b.items[0].rows.size()));
  }
}

void expect_same(const PackedBatch& a, const PackedBatch& b) {
  EXPECT_EQ(a.samples, b.samples);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.positions, b.positions);
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.cu_seqlens, b.cu_seqlens);
  EXPECT_EQ(a.counted, b.counted);
  ASSERT_EQ(a.items.size(), b.items.size());
  EXPECT_EQ(a.items[0].rows, b.items[0].rows);
  EXPECT_EQ(a.items[0].sizes, b.items[0].sizes);
  EXPECT_EQ(a.items[0].cu_items, b.items[0].cu_items);
  ASSERT_EQ(a.items[0].patches.defined(), b.items[0].patches.defined());
  if (!a.items[0].patches.defined()) return;
  EXPECT_EQ(a.items[0].patches.to_vector<float>(), b.items[0].patches.to_vector<float>());
}

Loader::Request request(int i) {
  Loader::Request r;
  for (int64_t k = 0; k < i % 4; ++k) r.samples.push_back((i * 3 + k * 5) % 11);
  r.wants = {i % 3 != 0};
  return r;
}

TEST(Loader, TheSameBatchesInOrderForAnyWorkers) {
  const Fixture f;
  for (int workers : {0, 1, 3}) {
    Loader loader = f.loader(workers);
    for (int i = 0; i < 60; ++i) loader.submit(request(i));
    EXPECT_EQ(loader.pending(), 60u);
    for (int i = 0; i < 60; ++i) {
      const Loader::Request r = request(i);
      expect_same(loader.take(), pack(f.data->train, f.packing, r.samples, r.wants));
      if (i % 2 == 0) loader.submit(request(60 + i / 2));  // interleaved, as in training
    }
    for (int i = 60; i < 90; ++i) EXPECT_EQ(loader.take().samples, request(i).samples);
    EXPECT_EQ(loader.pending(), 0u);
    EXPECT_THROW(loader.take(), std::logic_error);
  }
}

TEST(Loader, AnErrorComesWithItsBatchAndTheNextAreRight) {
  const Fixture f;
  for (int workers : {0, 1, 3}) {
    Loader loader = f.loader(workers);
    for (int i = 0; i < 9; ++i)
      loader.submit(i == 4 ? Loader::Request{{11}, {true}} : Loader::Request{{i}, {true}});
    for (int i = 0; i < 9; ++i) {
      if (i == 4) {
        EXPECT_THROW(loader.take(), std::exception) << workers;
      } else {
        EXPECT_EQ(loader.take().samples, std::vector<int64_t>{i}) << workers;
      }
    }
  }
}

TEST(Loader, EndsWithRequestsPending) {
  const Fixture f;
  for (int workers : {0, 1, 3})
    for (int taken : {0, 2}) {
      Loader loader = f.loader(workers);
      for (int i = 0; i < 50; ++i) loader.submit(request(i));
      for (int i = 0; i < taken; ++i) loader.take();
    }
}

}  // namespace
}  // namespace mimo
