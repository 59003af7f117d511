// 8-bit images, [channels][height][width], and PNG files of them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace mimo {

struct Image {
  int channels = 1, height = 0, width = 0;
  std::vector<uint8_t> pixels;
};

// Reads a PNG as gray (1 channel) or RGB (3 channels), whatever it holds; what is transparent becomes white.
// Throws ConfigError.
Image read_png(const std::filesystem::path&, int channels);
// Every pixel is the mean of the area that it covers in the image.
Image resize(const Image&, int height, int width);
std::vector<uint8_t> encode_png(const Image&);  // gray or RGB
void write_png(const Image&, const std::filesystem::path&);

// For the terminal: two characters a pixel, the darker the fuller, `indent` spaces before each line.
std::string draw(const Image&, int indent = 2);

}  // namespace mimo
