// Tokenizers: text to tokens and back. A dataset says which one made it, and what a prompt looks like, so
// that a trained model can be asked. Each sort of tokenizer is one file in data/tokenizers/ that registers
// itself.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/registry.h"

namespace mimo {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual int64_t vocab() const = 0;
  // Names of special tokens in the text, such as "<image>", stand for these tokens.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  virtual std::string decode(const std::vector<int32_t>& tokens) const = 0;  // unknown ones as "<ID>"
  virtual std::optional<int32_t> special(std::string_view name) const = 0;
};

struct TokenizerKind {
  std::string name, help;
  // From the lines of the description after the first. Throws ConfigError at `place`.
  std::function<std::unique_ptr<Tokenizer>(const std::vector<std::string>& lines, const std::string& place)>
      make;
};

// A description is a text: the name of a kind in the first line, what the kind wants to know in those that
// follow. Throws ConfigError at `place`.
std::shared_ptr<const Tokenizer> make_tokenizer(const std::string& description, const std::string& place);

// Bytes of UTF-8 text, and above them the special tokens of the digits, in this order: what a dataset that
// says nothing else has.
inline constexpr const char* kDigitsTokenizer = "bytes\n<begin>\n<end>\n<image>\n";

// What a model is asked: `text` with {media} replaced by the placeholders of items that the prompt has no
// place for, "<image>" for one of modality image, and {prompt} by the prompt. It answers until it gives the
// token `stop`.
struct PromptTemplate {
  std::string text = "<begin>{media}{prompt}";
  std::string prompt = "<image>=";  // where none is given
  std::string stop = "<end>";
  std::string opening() const { return text.substr(0, text.find('{')); }
};
std::string placeholder(const std::string& modality);  // "<image>"
// `media`: modalities of the items that come with the prompt.
std::string apply(const PromptTemplate&, const std::string& prompt, const std::vector<std::string>& media);

// The text as a terminal and a page can show it: control characters, and bytes that are not well-formed
// UTF-8, become \xNN. What an untrained model writes is any bytes.
std::string printable(std::string_view text);

}  // namespace mimo
