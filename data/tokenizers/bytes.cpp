// Bytes: ids 0 to 255 are the bytes of UTF-8 text, above them the special tokens, one a line of the
// description.
#include <algorithm>

#include "data/tokenizer.h"
#include "tensor/error.h"

namespace mimo {
namespace {

constexpr int32_t kBytes = 256;

class Bytes : public Tokenizer {
 public:
  explicit Bytes(std::vector<std::string> specials) : specials_(std::move(specials)) {}
  int64_t vocab() const override { return kBytes + static_cast<int64_t>(specials_.size()); }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    while (!text.empty()) {
      if (const auto id = first_special(text)) {
        ids.push_back(*id);
        text.remove_prefix(specials_[static_cast<size_t>(*id - kBytes)].size());
      } else {
        ids.push_back(static_cast<uint8_t>(text.front()));
        text.remove_prefix(1);
      }
    }
    return ids;
  }

  std::string decode(const std::vector<int32_t>& tokens) const override {
    std::string text;
    for (int32_t id : tokens) {
      if (id >= 0 && id < kBytes) text += static_cast<char>(id);
      if (id >= kBytes)
        text += id < vocab() ? specials_[static_cast<size_t>(id - kBytes)] : "<" + std::to_string(id) + ">";
    }
    return text;
  }

  std::optional<int32_t> special(std::string_view name) const override {
    for (size_t i = 0; i < specials_.size(); ++i)
      if (specials_[i] == name) return kBytes + static_cast<int32_t>(i);
    return std::nullopt;
  }

 private:
  // The special token that the text begins with, the longest one.
  std::optional<int32_t> first_special(std::string_view text) const {
    std::optional<int32_t> longest;
    size_t length = 0;
    for (size_t i = 0; i < specials_.size(); ++i)
      if (specials_[i].size() > length && text.starts_with(specials_[i]))
        longest = kBytes + static_cast<int32_t>(i), length = specials_[i].size();
    return longest;
  }
  std::vector<std::string> specials_;
};

const Registry<TokenizerKind>::Entry entry{
    {.name = "bytes",
     .help = "bytes of UTF-8 text; lines: names of special tokens",
     .make = [](const std::vector<std::string>& lines,
                const std::string& place) -> std::unique_ptr<Tokenizer> {
       for (auto line = lines.begin(); line != lines.end(); ++line)
         if (line->empty() || std::find(lines.begin(), line, *line) != line)
           throw ConfigError(place, "expected different names of special tokens, found " +
                                        (line->empty() ? "an empty line" : printable(*line) + " twice"));
       return std::make_unique<Bytes>(lines);
     }}};

}  // namespace
}  // namespace mimo
