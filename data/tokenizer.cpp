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

}  // namespace mimo
