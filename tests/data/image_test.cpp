#include "data/image.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "tensor/error.h"
#include "tests/io/temp_dir.h"

namespace mimo {
namespace {

Image pattern(int channels, int height, int width) {
  Image image{channels, height, width, {}};
  for (int i = 0; i < channels * height * width; ++i)
    image.pixels.push_back(static_cast<uint8_t>((i * 37 + i / 5) % 256));
  return image;
}

TEST(Image, RoundTrip) {
  TempDir dir;
  for (int channels : {1, 3})
    for (const auto& [height, width] : {std::pair{1, 1}, {8, 24}, {3, 7}, {65, 2}}) {
      const Image image = pattern(channels, height, width);
      write_png(image, dir / "a.png");
      const Image back = read_png(dir / "a.png", channels);
      EXPECT_EQ(back.channels, channels);
      EXPECT_EQ(back.height, height);
      EXPECT_EQ(back.width, width);
      EXPECT_EQ(back.pixels, image.pixels) << channels << " x " << height << " x " << width;
    }
}

TEST(Image, EncodesWhatItWrites) {
  TempDir dir;
  const Image image = pattern(3, 5, 4);
  write_png(image, dir / "a.png");
  std::ifstream in(dir / "a.png", std::ios::binary);
  const std::vector<uint8_t> file{std::istreambuf_iterator<char>(in), {}};
  EXPECT_EQ(encode_png(image), file);
  ASSERT_GE(file.size(), 8u);
  EXPECT_EQ(std::string(file.begin() + 1, file.begin() + 4), "PNG");
}

TEST(Image, GrayAsRgbRepeatsAndRgbAsGrayIsLuminance) {
  TempDir dir;
  const Image gray = pattern(1, 4, 6);
  write_png(gray, dir / "gray.png");
  const Image rgb = read_png(dir / "gray.png", 3);
  ASSERT_EQ(rgb.pixels.size(), 72u);
  for (size_t i = 0; i < 72; ++i) EXPECT_EQ(rgb.pixels[i], gray.pixels[i % 24]);

  // sRGB's luminance, 0.2126 R + 0.7152 G + 0.0722 B of linear light, encoded again. Two levels for libpng's
  // fixed-point tables.
  write_png({3, 1, 4, {255, 0, 0, 90, /**/ 0, 255, 0, 90, /**/ 0, 0, 255, 90}}, dir / "rgb.png");
  const auto encoded = [](double y) { return 255 * (1.055 * std::pow(y, 1 / 2.4) - 0.055); };
  const Image back = read_png(dir / "rgb.png", 1);
  ASSERT_EQ(back.pixels.size(), 4u);
  EXPECT_NEAR(back.pixels[0], encoded(0.2126), 2);
  EXPECT_NEAR(back.pixels[1], encoded(0.7152), 2);
  EXPECT_NEAR(back.pixels[2], encoded(0.0722), 2);
  EXPECT_NEAR(back.pixels[3], 90, 1);
}

TEST(Image, RefusesWhatIsNoPng) {
  TempDir dir;
  const auto message = [&](const std::string& name) {
    return thrown<ConfigError>([&] { read_png(dir / name, 1); });
  };
  EXPECT_CONTAINS(message("none.png"), "none.png] cannot read the image: expected a PNG file, found");
  std::ofstream(dir / "text.png") << "no image at all, whatever its name";
  EXPECT_CONTAINS(message("text.png"), "text.png] cannot read the image: expected a PNG file, found");
  std::ofstream(dir / "empty.png") << "";
  EXPECT_CONTAINS(message("empty.png"), "expected a PNG file, found");
  const std::vector<uint8_t> png = encode_png(pattern(1, 40, 40));
  for (size_t n : {4u, 20u, 60u, static_cast<unsigned>(png.size() / 2)}) {
    std::ofstream(dir / "cut.png", std::ios::binary).write(reinterpret_cast<const char*>(png.data()), n);
    EXPECT_CONTAINS(message("cut.png"), "expected a PNG file, found") << n << " bytes";
  }
  EXPECT_THROW(read_png(dir / "text.png", 2), std::exception);
  EXPECT_THROW(encode_png({2, 1, 1, {0, 0}}), std::logic_error);
  EXPECT_THROW(encode_png({1, 2, 2, {0, 0}}), std::logic_error);
  EXPECT_CONTAINS(thrown<std::runtime_error>([&] { write_png(pattern(1, 1, 1), dir / "no" / "where"); }),
                  "cannot write");
}

TEST(Image, DrawsDarkAsFull) {
  EXPECT_EQ(draw({1, 2, 2, {255, 0, 128, 255}}, 1), "   ██\n ▒▒  \n");
  EXPECT_EQ(draw({3, 1, 1, {0, 0, 0}}, 0), "██\n");
}

}  // namespace
}  // namespace mimo
