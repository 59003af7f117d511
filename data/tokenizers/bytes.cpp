// Bytes: ids 0 to 255 are the bytes of UTF-8 text, above them the special tokens, one a line of the
// description.
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
      if (id >= kBytes && id < vocab()) text += specials_[static_cast<size_t>(id - kBytes)];
    }
    return text;
  }

  std::optional<int32_t> special(std::string_view name) const override {
    for (size_t i = 0; i < specials_.size(); ++i)
      if (specials_[i] == name) return kBytes + static_cast<int32_t>(i);
    return std::nullopt;
  }

 private:
  // The special token that the text begins with.
  std::optional<int32_t> first_special(std::string_view text) const {
    for (size_t i = 0; i < specials_.size(); ++i)
      if (text.starts_with(specials_[i])) return kBytes + static_cast<int32_t>(i);
    return std::nullopt;
  }
  std::vector<std::string> specials_;
};

const Registry<TokenizerKind>::Entry entry{
    {.name = "bytes",
     .help = "bytes of UTF-8 text; lines: names of special tokens",
     .make = [](const std::vector<std::string>& lines) -> std::unique_ptr<Tokenizer> {
       for (const std::string& line : lines)
         if (line.empty())
           throw ConfigError("bytes", "expected names of special tokens, found an empty line");
       return std::make_unique<Bytes>(lines);
     }}};

}  // namespace
}  // namespace mimo
