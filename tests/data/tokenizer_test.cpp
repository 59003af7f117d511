#include "data/tokenizer.h"

#include <gtest/gtest.h>

namespace mimo {
namespace {

using Ids = std::vector<int32_t>;

TEST(Tokenizer, BytesAndSpecials) {
  EXPECT_EQ(Tokenizer::encode(""), Ids{});
  EXPECT_EQ(Tokenizer::encode("A="), (Ids{65, 61}));
  EXPECT_EQ(Tokenizer::encode("<begin><image>=7<end>"), (Ids{256, 258, 61, 55, 257}));
  EXPECT_EQ(Tokenizer::encode("é"), (Ids{0xc3, 0xa9}));  // bytes above 127 stay positive
  EXPECT_EQ(Tokenizer::encode("<imag<image>e>"), (Ids{60, 105, 109, 97, 103, 258, 101, 62}));
  EXPECT_EQ(Tokenizer::encode("<end"), (Ids{60, 101, 110, 100}));
}

TEST(Tokenizer, DecodeInverts) {
  std::string every;
  for (int c = 0; c < 256; ++c) every += static_cast<char>(c);
  for (const std::string& text : {every, std::string("<begin>12<image>,<image>=3<end>"), std::string()})
    EXPECT_EQ(Tokenizer::decode(Tokenizer::encode(text)), text);
  for (int32_t id : Tokenizer::encode(every + "<begin><image><end>")) EXPECT_LT(id, Tokenizer::vocab);
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
