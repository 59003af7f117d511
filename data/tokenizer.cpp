#include "data/tokenizer.h"

#include <array>
#include <utility>

namespace mimo {
namespace {

constexpr std::array<std::pair<std::string_view, int32_t>, 3> kSpecial{
    {{"<begin>", Tokenizer::begin}, {"<end>", Tokenizer::end}, {"<image>", Tokenizer::image}}};

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text) {
  std::vector<int32_t> ids;
  while (!text.empty()) {
    bool special = false;
    for (const auto& [name, id] : kSpecial)
      if (text.starts_with(name)) {
        ids.push_back(id);
        text.remove_prefix(name.size());
        special = true;
        break;
      }
    if (special) continue;
    ids.push_back(static_cast<uint8_t>(text.front()));
    text.remove_prefix(1);
  }
  return ids;
}

std::string Tokenizer::decode(const std::vector<int32_t>& tokens) {
  std::string text;
  for (int32_t id : tokens) {
    if (id >= 0 && id < 256) text += static_cast<char>(id);
    for (const auto& [name, special] : kSpecial)
      if (id == special) text += name;
  }
  return text;
}

std::string printable(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0; };
  std::string out;
  for (size_t i = 0; i < text.size();) {
    // Length and smallest code point by the first byte: longer forms, surrogates and the C1 controls are
    // refused.
    const uint32_t first = byte(i);
    const size_t length = first < 0x80   ? 1
                          : first < 0xc0 ? 0
                          : first < 0xe0 ? 2
                          : first < 0xf0 ? 3
                          : first < 0xf8 ? 4
                                         : 0;
    constexpr uint32_t smallest[] = {0, 0x20, 0xa0, 0x800, 0x10000};
    uint32_t code = length > 1 ? first & (0x7fu >> length) : first;
    bool good = length > 0;
    for (size_t k = 1; k < length; ++k) {
      good = good && (byte(i + k) & 0xc0) == 0x80;
      code = code << 6 | (byte(i + k) & 0x3f);
    }
    good = good && code >= smallest[length] && code != 0x7f && (code < 0xd800 || code > 0xdfff) &&
           code <= 0x10ffff;
    if (good) {
      out += text.substr(i, length);
      i += length;
    } else {
      constexpr char digits[] = "0123456789abcdef";
      out += {'\\', 'x', digits[first >> 4], digits[first & 15]};
      ++i;
    }
  }
  return out;
}

}  // namespace mimo
