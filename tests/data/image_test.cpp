#include "data/image.h"

#include <gtest/gtest.h>
#include <png.h>

#include <cmath>
#include <fstream>
#include <functional>

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

// A PNG of 16-bit samples, as scanners and editors write them: no gamma is given.
void write_png16(const std::filesystem::path& path, int channels, int height, int width,
                 const std::function<uint16_t(int)>& sample) {
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  FILE* file = std::fopen(path.c_str(), "wb");
  png_init_io(png, file);
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), 16,
               channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, info);
  for (int y = 0; y < height; ++y) {
    std::vector<uint8_t> row;
    for (int i = 0; i < width * channels; ++i) {
      const uint16_t v = sample(y * width * channels + i);
      row.insert(row.end(), {static_cast<uint8_t>(v >> 8), static_cast<uint8_t>(v & 255)});
    }
    png_write_row(png, row.data());
  }
  png_write_end(png, nullptr);
  png_destroy_write_struct(&png, &info);
  std::fclose(file);
}

TEST(Image, SixteenBitSamplesAreScaledToEight) {
  TempDir dir;
  write_png16(dir / "gray.png", 1, 16, 16, [](int i) { return static_cast<uint16_t>(i * 257); });
  const Image gray = read_png(dir / "gray.png", 1);
  ASSERT_EQ(gray.pixels.size(), 256u);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(gray.pixels[static_cast<size_t>(i)], i);
  write_png16(dir / "rgb.png", 3, 16, 16, [](int i) { return static_cast<uint16_t>(i * 65535 / 767); });
  const Image rgb = read_png(dir / "rgb.png", 3);
  for (int c = 0; c < 3; ++c)
    for (int i = 0; i < 256; ++i)
      EXPECT_NEAR(rgb.pixels[static_cast<size_t>(c * 256 + i)], (3 * i + c) * 255 / 767.0, 1) << c;
}

// 10^6 x 10^6 pixels in some 60 bytes. A checksum is no obstacle to who writes such a file.
TEST(Image, RefusesAClaimThatTheFileCannotHold) {
  TempDir dir;
  std::vector<uint8_t> png = encode_png(pattern(1, 4, 4));
  const auto claim = [&](uint32_t width, uint32_t height) {
    const auto put = [&](size_t at, uint32_t v) {
      for (int i = 0; i < 4; ++i) png[at + static_cast<size_t>(i)] = static_cast<uint8_t>(v >> (24 - 8 * i));
    };
    put(16, width), put(20, height);
    uint32_t crc = ~0u;  // of the chunk's name and data
    for (size_t i = 12; i < 29; ++i) {
      crc ^= png[i];
      for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    put(29, ~crc);
    std::ofstream(dir / "a.png", std::ios::binary)
        .write(reinterpret_cast<const char*>(png.data()), static_cast<std::streamsize>(png.size()));
    return thrown<ConfigError>([&] { read_png(dir / "a.png", 1); });
  };
  EXPECT_EQ(claim(4, 4), "nothing was thrown");
  EXPECT_CONTAINS(claim(1000000, 1000000), "a.png] too large an image: expected at most");
  EXPECT_CONTAINS(claim(1000000, 1000000), "found 1000000 x 1000000");
  EXPECT_CONTAINS(claim(65536, 65536), "too large an image");  // 2^32 pixels: 0 in libpng's macro
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
