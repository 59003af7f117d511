#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include "tests/data/tokens.h"
#include "tests/io/temp_dir.h"

namespace mimo {
namespace {

using Ids = std::vector<int32_t>;

TEST(Tokenizer, BytesAndSpecials) {
  EXPECT_EQ(digits_tokenizer().encode(""), Ids{});
  EXPECT_EQ(digits_tokenizer().encode("A="), (Ids{65, 61}));
  EXPECT_EQ(digits_tokenizer().encode("<begin><image>=7<end>"), (Ids{256, 258, 61, 55, 257}));
  EXPECT_EQ(digits_tokenizer().encode("é"), (Ids{0xc3, 0xa9}));  // bytes above 127 stay positive
  EXPECT_EQ(digits_tokenizer().encode("<imag<image>e>"), (Ids{60, 105, 109, 97, 103, 258, 101, 62}));
  EXPECT_EQ(digits_tokenizer().encode("<end"), (Ids{60, 101, 110, 100}));
}

TEST(Tokenizer, DecodeInverts) {
  std::string every;
  for (int c = 0; c < 256; ++c) every += static_cast<char>(c);
  for (const std::string& text : {every, std::string("<begin>12<image>,<image>=3<end>"), std::string()})
    EXPECT_EQ(digits_tokenizer().decode(digits_tokenizer().encode(text)), text);
  for (int32_t id : digits_tokenizer().encode(every + "<begin><image><end>")) EXPECT_LT(id, kVocab);
}

TEST(Tokenizer, FromItsDescription) {
  const auto t = make_tokenizer("bytes\n<s>\n<audio>\n", "here");
  EXPECT_EQ(t->vocab(), 258);
  EXPECT_EQ(t->encode("<s>a<audio><image>").size(), 3 + std::string("<image>").size());
  EXPECT_EQ(t->special("<audio>"), 257);
  EXPECT_EQ(t->special("<image>"), std::nullopt);
  EXPECT_EQ(t->decode({256, 'a', 257, 300, -1}), "<s>a<audio><300>");
  EXPECT_EQ(make_tokenizer("bytes\n<a\n<a>", "")->encode("<a><a"), (Ids{257, 256})) << "the longest name";
  EXPECT_CONTAINS(thrown<ConfigError>([] { make_tokenizer("bytes\n<a>\n<a>", "here"); }),
                  "[here] expected different names of special tokens, found <a> twice");
  EXPECT_CONTAINS(thrown<ConfigError>([] { make_tokenizer("", "here"); }), "[here] unknown tokenizer");
}

TEST(PromptTemplate, PutsMediaAndPromptInTheirPlaces) {
  const PromptTemplate digits;
  EXPECT_EQ(apply(digits, "<image>=", {"image"}), "<begin><image>=");
  EXPECT_EQ(apply(digits, "=", {"image"}), "<begin><image>=");
  EXPECT_EQ(apply(digits, "=", {}), "<begin>=");
  EXPECT_EQ(apply(digits, "<begin>1+1=", {}), "<begin>1+1=")
      << "who writes the opening is taken at their word";
  EXPECT_EQ(apply(digits, "<image>,=", {"image", "image"}), "<begin><image><image>,=");
  EXPECT_EQ(apply(digits, "{media}{prompt}", {"image"}), "<begin><image>{media}{prompt}")
      << "what is asked stays";
  const PromptTemplate chat{"<user>{prompt}{media}<answer>", "", "<end>"};
  EXPECT_EQ(apply(chat, "what?", {"image", "audio"}), "<user>what?<audio><image><answer>");
  EXPECT_EQ(apply(chat, "", {}), "<user><answer>");
}

TEST(Printable, KeepsTextAndSpellsOutOtherBytes) {
  EXPECT_EQ(printable(""), "");
  EXPECT_EQ(printable("12+3=15"), "12+3=15");
  EXPECT_EQ(printable("z\u00e4h \u20ac \U0001f600"), "z\u00e4h \u20ac \U0001f600");
  EXPECT_EQ(printable("\x1b[2J\n\x7f"), "\\x1b[2J\\x0a\\x7f");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\\x9b");           // a control character of Latin-1
  EXPECT_EQ(printable("\xe2\x82"), "\\xe2\\x82");           // cut off
  EXPECT_EQ(printable("\xc0\xaf"), "\\xc0\\xaf");           // longer than need be
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // half of a pair
  EXPECT_EQ(printable("\xff\xfe"
                      "1"),
            "\\xff\\xfe"
            "1");
}

}  // namespace
}  // namespace mimo
