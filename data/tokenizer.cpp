#include "data/tokenizer.h"

#include <algorithm>
#include <sstream>

#include "tensor/error.h"

namespace mimo {
namespace {

bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

int64_t count(std::string_view text, std::string_view part) {
  int64_t n = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

}  // namespace

std::shared_ptr<const Tokenizer> make_tokenizer(const std::string& description, const std::string& place) {
  std::istringstream in(description);
  std::string name;
  std::getline(in, name);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  const TokenizerKind* kind = Registry<TokenizerKind>::find(name);
  if (!kind)
    throw ConfigError(place, "unknown tokenizer: expected one of " + Registry<TokenizerKind>::names() +
                                 ", found \"" + printable(name.substr(0, 40)) + '"');
  return kind->make(lines, place);
}

std::string placeholder(const std::string& modality) { return "<" + modality + ">"; }

std::string apply(const PromptTemplate& t, const std::string& prompt, const std::vector<std::string>& media) {
  std::string unplaced;
  std::vector<std::string> names = media;
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  for (const std::string& m : names) {
    const int64_t named = count(prompt, placeholder(m)), all = std::count(media.begin(), media.end(), m);
    for (int64_t n = named; n < all; ++n) unplaced += placeholder(m);
  }
  // A prompt that already begins with the opening does not get it twice. What the prompt says stays as it is, even where it
  // looks like a name of the template.
  const std::string opening = t.opening();
  const std::string asked = prompt.starts_with(opening) ? prompt.substr(opening.size()) : prompt;
  std::string out;
  for (std::string_view rest = t.text; !rest.empty();) {
    if (take(rest, "{media}"))
      out += unplaced;
    else if (take(rest, "{prompt}"))
      out += asked;
    else
      out += rest.front(), rest.remove_prefix(1);
  }
  return out;
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
