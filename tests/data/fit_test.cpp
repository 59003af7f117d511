#include "data/fit.h"

#include <gtest/gtest.h>

#include <memory>

namespace mimo {
namespace {

const Split& training() {
  static const std::shared_ptr<DataFile> data = open_dataset("data/digits.h5");
  return data->train;
}
const Split& held_out() {
  static const std::shared_ptr<DataFile> data = open_dataset("data/digits.h5");
  return data->heldout;
}

Image negative(Image image) {
  for (uint8_t& x : image.pixels) x = static_cast<uint8_t>(255 - x);
  return image;
}

TEST(Fit, ResizedPixelsAreMeansOfTheirAreas) {
  const Image image{1, 2, 4, {0, 10, 20, 30, 40, 50, 60, 70}};
  EXPECT_EQ(resize(image, 2, 4).pixels, image.pixels);
  EXPECT_EQ(resize(image, 1, 2).pixels, (std::vector<uint8_t>{25, 45}));
  EXPECT_EQ(resize(image, 1, 1).pixels, std::vector<uint8_t>{35});
  // Three columns of 4/3 pixels each: 0 and a third of 12; two thirds of 12 and 24; a third of 24 and 36.
  EXPECT_EQ(resize({1, 1, 4, {0, 12, 24, 36}}, 1, 3).pixels, (std::vector<uint8_t>{3, 18, 33}));
  EXPECT_EQ(resize(image, 4, 8).pixels.size(), 32u);
  EXPECT_EQ(resize(resize(image, 6, 12), 2, 4).pixels, image.pixels);
  const Image rgb{3, 1, 2, {0, 2, 10, 12, 100, 104}};
  EXPECT_EQ(resize(rgb, 1, 1).pixels, (std::vector<uint8_t>{1, 11, 102}));
}

TEST(Fit, ImagesOfTheTrainedKindStayAsTheyAre) {
  const ImageRange r = image_range(training(), 0);
  EXPECT_EQ(r.least_height, 8);
  EXPECT_EQ(r.most_height, 8);
  for (int64_t s = 0; s < held_out().samples(); ++s)
    for (const Sample::Item& item : held_out().read(s).items) {
      std::string done;
      EXPECT_EQ(fit(item.image(), r, 8, done).pixels, item.bytes);
      EXPECT_EQ(done, "") << s;
    }
}

// Every held-out image, white on black and larger, comes back pixel for pixel.
TEST(Fit, TurnsAndScalesWhatComesFromOutside) {
  const ImageRange r = image_range(training(), 0);
  for (int64_t s = 0; s < held_out().samples(); ++s)
    for (const Sample::Item& item : held_out().read(s).items) {
      const int times = static_cast<int>(2 + s % 12);
      const Image large = negative(resize(item.image(), 8 * times, item.shape.width * times));
      std::string done;
      const Image back = fit(large, r, 8, done);
      EXPECT_EQ(back.height, 8);
      EXPECT_EQ(back.width, item.shape.width);
      EXPECT_EQ(back.pixels, item.bytes) << s;
      EXPECT_TRUE(done.starts_with("scaled from ")) << done;
      EXPECT_TRUE(done.ends_with(", turned to its negative")) << done;
    }
}

TEST(Fit, KeepsProportionsToWholePatches) {
  const ImageRange r{8, 16, 50, 200};
  std::string done;
  const auto size = [&](int height, int width) {
    const Image image =
        fit({1, height, width, std::vector<uint8_t>(static_cast<size_t>(height * width), 128)}, r, 8, done);
    return std::pair(image.height, image.width);
  };
  EXPECT_EQ(size(8, 20), std::pair(8, 20));  // not scaled: whoever cuts it says that patches do not divide it
  EXPECT_EQ(size(16, 24), std::pair(16, 24));
  EXPECT_EQ(done, "");
  EXPECT_EQ(size(100, 330), std::pair(16, 56));
  EXPECT_EQ(done, "scaled from 100 x 330 to 16 x 56");
  EXPECT_EQ(size(4, 8), std::pair(8, 16));
  EXPECT_EQ(size(1000, 10), std::pair(16, 8));
}

// Photographs are dark and light: no image of such a dataset is turned.
TEST(Fit, TurnsNothingThatMayBeMeantSo) {
  const Image dark{1, 8, 8, std::vector<uint8_t>(64, 10)};
  std::string done;
  EXPECT_EQ(fit(dark, {8, 8, 5, 250}, 8, done).pixels, dark.pixels);
  EXPECT_EQ(fit(dark, {8, 8, 100, 200}, 8, done).pixels, dark.pixels);  // nor is its negative like them
  EXPECT_EQ(done, "");
  EXPECT_EQ(fit(dark, {8, 8, 100, 250}, 8, done).pixels, std::vector<uint8_t>(64, 245));
}

}  // namespace
}  // namespace mimo
