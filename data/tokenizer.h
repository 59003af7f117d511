// A byte-level tokenizer: ids 0 to 255 are the bytes of UTF-8 text, above them the special tokens.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mimo {

struct Tokenizer {
  static constexpr int32_t begin = 256, end = 257, image = 258;
  static constexpr int32_t vocab = 259;

  // "<begin>", "<end>" and "<image>" in the text stand for the special tokens.
  static std::vector<int32_t> encode(std::string_view text);
  static std::string decode(const std::vector<int32_t>& tokens);
};

// The text as a terminal and a page can show it: control characters, and bytes that are not well-formed
// UTF-8, become \xNN. What an untrained model writes is any bytes.
std::string printable(std::string_view text);

}  // namespace mimo
