#include "data/image.h"

#include <png.h>

#include <fstream>
#include <stdexcept>
#include <string>

#include "tensor/error.h"

namespace mimo {

Image read_png(const std::filesystem::path& file, int channels) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  const auto refuse = [&] {
    const std::string why = png.message;
    png_image_free(&png);
    throw ConfigError(file.string(), "cannot read the image: expected a PNG file, found " + why);
  };
  if (!png_image_begin_read_from_file(&png, file.c_str())) refuse();
  png.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  std::vector<uint8_t> rows(PNG_IMAGE_SIZE(png));
  const png_color white{255, 255, 255};
  if (!png_image_finish_read(&png, &white, rows.data(), 0, nullptr)) refuse();
  Image image{channels, static_cast<int>(png.height), static_cast<int>(png.width),
              std::vector<uint8_t>(rows.size())};
  const size_t area = static_cast<size_t>(png.height) * png.width;
  for (size_t i = 0; i < area; ++i)
    for (int c = 0; c < channels; ++c) image.pixels[c * area + i] = rows[i * channels + c];
  return image;
}

std::vector<uint8_t> encode_png(const Image& image) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = image.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  const size_t area = static_cast<size_t>(image.height) * image.width;
  std::vector<uint8_t> rows(area * image.channels);
  for (size_t i = 0; i < area; ++i)
    for (int c = 0; c < image.channels; ++c) rows[i * image.channels + c] = image.pixels[c * area + i];
  png_alloc_size_t bytes = 0;
  std::vector<uint8_t> out;
  if (!png_image_write_to_memory(&png, nullptr, &bytes, 0, rows.data(), 0, nullptr))
    throw std::runtime_error(std::string("cannot encode a PNG: ") + png.message);
  out.resize(bytes);
  if (!png_image_write_to_memory(&png, out.data(), &bytes, 0, rows.data(), 0, nullptr))
    throw std::runtime_error(std::string("cannot encode a PNG: ") + png.message);
  out.resize(bytes);
  return out;
}

void write_png(const Image& image, const std::filesystem::path& file) {
  const std::vector<uint8_t> bytes = encode_png(image);
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) throw std::runtime_error("cannot write " + file.string());
}

std::string draw(const Image& image, int indent) {
  static const char* shades[] = {" ", "░", "▒", "▓", "█"};
  std::string out;
  for (int y = 0; y < image.height; ++y) {
    out.append(indent, ' ');
    for (int x = 0; x < image.width; ++x) {
      const int dark = 255 - image.pixels[static_cast<size_t>(y) * image.width + x];
      const char* shade = shades[dark * 5 / 256];
      out += shade;
      out += shade;
    }
    out += '\n';
  }
  return out;
}

}  // namespace mimo
