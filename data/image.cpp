#include "data/image.h"

#include <png.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

#include "io/file.h"
#include "tensor/error.h"

namespace mimo {
namespace {

png_uint_32 format_of(int channels) {
  MIMO_CHECK(channels == 1 || channels == 3, "PNG images have 1 or 3 channels here");
  return channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
}

// Pixels that a file of so many bytes can hold: deflate makes at most 1032 bytes of one, and a pixel takes at
// least a bit. What claims more is refused before there is memory for it.
int64_t most_pixels(const std::filesystem::path& file) {
  constexpr uintmax_t kMost = uintmax_t{1} << 28;
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(file, error);
  return static_cast<int64_t>(error ? kMost : std::min(kMost, bytes * 1032 * 8));
}

}  // namespace

Image read_png(const std::filesystem::path& file, int channels) {
  require_file(file);
  png_image png{};
  const std::unique_ptr<png_image, decltype(&png_image_free)> closer(&png, png_image_free);
  png.version = PNG_IMAGE_VERSION;
  const auto check = [&](int ok) {
    if (!ok)
      throw ConfigError(file.string(),
                        std::string("cannot read the image: expected a PNG file, found: ") + png.message);
  };
  check(png_image_begin_read_from_file(&png, file.c_str()));
  const int64_t pixels = int64_t{png.width} * png.height, most = most_pixels(file);
  if (pixels > most)
    throw ConfigError(file.string(), "too large an image: expected at most " + std::to_string(most) +
                                         " pixels in a file of its size, found " + std::to_string(png.width) +
                                         " x " + std::to_string(png.height));
  png.format = format_of(channels);
  // 16-bit samples are encoded like those of 8 bits unless the file says otherwise; libpng would take them to
  // be linear light, which makes a gray of one half one of 188.
  png.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
  std::vector<uint8_t> interleaved(static_cast<size_t>(pixels * channels));
  const png_color white{255, 255, 255};
  check(png_image_finish_read(&png, &white, interleaved.data(), 0, nullptr));
  Image image{channels, static_cast<int>(png.height), static_cast<int>(png.width),
              std::vector<uint8_t>(interleaved.size())};
  const size_t planes = static_cast<size_t>(channels), area = interleaved.size() / planes;
  for (size_t i = 0; i < area; ++i)
    for (size_t c = 0; c < planes; ++c) image.pixels[c * area + i] = interleaved[i * planes + c];
  return image;
}

std::vector<uint8_t> encode_png(const Image& image) {
  const size_t planes = static_cast<size_t>(image.channels),
               area = static_cast<size_t>(image.height) * static_cast<size_t>(image.width);
  MIMO_CHECK(image.pixels.size() == planes * area, "an image and its size");
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = format_of(image.channels);
  std::vector<uint8_t> interleaved(planes * area);
  for (size_t i = 0; i < area; ++i)
    for (size_t c = 0; c < planes; ++c) interleaved[i * planes + c] = image.pixels[c * area + i];
  png_alloc_size_t bytes = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::vector<uint8_t> out(bytes);
  if (!png_image_write_to_memory(&png, out.data(), &bytes, 0, interleaved.data(), 0, nullptr))
    throw std::runtime_error(std::string("cannot encode a PNG: ") + png.message);
  out.resize(bytes);
  return out;
}

void write_png(const Image& image, const std::filesystem::path& file) {
  require_file(file);
  const std::vector<uint8_t> bytes = encode_png(image);
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) throw std::runtime_error("cannot write " + file.string());
}

std::string draw(const Image& image, int indent) {
  static const char* const shades[] = {" ", "░", "▒", "▓", "█"};
  const size_t width = static_cast<size_t>(image.width), area = static_cast<size_t>(image.height) * width;
  std::string out;
  for (size_t i = 0; i < area; ++i) {
    if (i % width == 0) out.append(static_cast<size_t>(indent), ' ');
    size_t light = 0;
    for (size_t at = i; at < image.pixels.size(); at += area) light += image.pixels[at];
    const char* const shade = shades[(255 - light / static_cast<size_t>(image.channels)) * 5 / 256];
    out.append(shade).append(shade);
    if (i % width == width - 1) out += '\n';
  }
  return out;
}

}  // namespace mimo
