// From configuration to model: what a correct one gives, and what each wrong one is told.
#include "nn/specs.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/error.h"

namespace mimo {
namespace {

using Strings = std::vector<std::string>;

const char* const kVision = R"(
[module.vision]
kind = "vit"
hidden = 32
layers = 2
heads = 4
ffn = 48
patch = 4
grid = 8
)";
const char* const kLanguage = R"(
[module.language]
kind = "hybrid"
pattern = "M-|*S"
hidden = 24
)";

ModelSpec spec(const std::string& text, const Strings& overrides = {},
               const DataSpec& data = {50, 3, {"image"}}) {
  Schema schema;
  declare_run_keys(schema);
  declare_model_keys(schema);
  return model_spec(parse_config(schema, text, "f.toml", overrides), data);
}

TEST(Specs, ModelOfAConfiguration) {
  const ModelSpec m = spec(
      std::string(kLanguage) + kVision,
      {"--train.dtype=bf16", "--train.seed=5", "--train.recompute=true", "--module.vision.freeze=true",
       "--module.vision.class_tokens=3", "--module.language.init_std=0", "--module.language.rope_theta=1e4"});
  EXPECT_EQ(m.dtype, DType::bf16);
  EXPECT_EQ(m.seed, 5u);
  EXPECT_TRUE(m.recompute);
  EXPECT_EQ(m.names(), (Strings{"vision", "language"}));  // encoders first, whatever the file's order
  EXPECT_EQ(m.edges(), (ModuleEdges{{0, 1}}));
  const ModuleSpec &v = m.modules[0], &l = m.modules[1];
  EXPECT_FALSE(v.trainable);
  EXPECT_TRUE(l.trainable);
  EXPECT_EQ(v.init_std, 0.02);
  EXPECT_EQ(l.init_std, 0);
  EXPECT_EQ(v.vit.out, 24);  // the language model's width
  EXPECT_EQ(v.vit.channels, 3);
  EXPECT_EQ(v.vit.class_tokens, 3);
  EXPECT_EQ(v.vit.features(), 4 * 32);
  EXPECT_EQ(l.hybrid.vocab, 50);
  EXPECT_EQ(l.hybrid.rope_theta, 1e4);
  EXPECT_EQ(v.layers(), 2);
  EXPECT_EQ(l.layers(), 4);
}

TEST(Specs, EncodersComeInTheOrderOfTheModalities) {
  std::string audio(kVision);
  audio.replace(audio.find("vision"), 6, "sound");
  const ModelSpec m = spec(std::string(kVision) + audio + kLanguage, {"--module.sound.modality=audio"},
                           {50, 1, {"audio", "image"}});
  EXPECT_EQ(m.names(), (Strings{"sound", "vision", "language"}));
  EXPECT_EQ(m.edges(), (ModuleEdges{{0, 2}, {1, 2}}));
}

TEST(Specs, TextAlone) { EXPECT_EQ(spec(kLanguage, {}, {50, 1, {}}).names(), Strings{"language"}); }

struct Mistake {
  std::string text;
  Strings overrides;
  Strings told;  // parts of the message
};

TEST(Specs, EveryMistakeIsNamed) {
  const std::string both = std::string(kVision) + kLanguage;
  std::string second_language(kLanguage), second_vision(kVision);
  second_language.replace(second_language.find("language"), 8, "other");
  second_vision.replace(second_vision.find("vision"), 6, "eye");
  const std::vector<Mistake> mistakes = {
      {both, {"--module.vision.kind=conv"}, {"module.vision.kind", "vit", "hybrid", "conv"}},
      {kVision, {}, {"[module]", "no language model", "hint: add [module.language]"}},
      {both + second_language, {}, {"module.other.kind", "a second language model", "language and other"}},
      {kLanguage, {}, {"[module]", "modality image", "exactly one"}},
      {both + second_vision, {}, {"[module]", "expected one encoder for each", "1 modalities, found 2"}},
      {both, {"--module.vision.modality=audio"}, {"module.vision.modality", "one of image", "found audio"}},
      {both, {"--module.vision.hidden=36"}, {"module.vision.hidden", "multiple of 8", "found 36 / 4"}},
      {both, {"--module.vision.heads=3"}, {"module.vision.hidden", "found 32 / 3"}},
      {both, {"--module.vision.hidden=2080"}, {"module.vision.hidden", "at most 256", "found 2080 / 4"}},
      {both, {"--module.vision.activation=tanh"}, {"module.vision.activation", "gelu", "tanh"}},
      {both, {"--module.vision.projector=conv"}, {"module.vision.projector", "affine", "conv"}},
      {both, {"--module.language.pattern=MX-"}, {"module.language.pattern", "M S * -", "found 'X'"}},
      {both, {"--module.language.pattern=|"}, {"module.language.pattern", "no layer"}},
      {both, {"--module.language.head_dim=12"}, {"module.language.head_dim", "multiple of 8", "found 12"}},
      {both, {"--module.language.kv_heads=3"}, {"module.language.kv_heads", "divisor of heads 4", "found 3"}},
      {both,
       {"--module.language.ssm_groups=3"},
       {"module.language.ssm_groups", "divisor of ssm_heads 8", "found 3"}},
      {both, {"--module.language.conv_width=9"}, {"module.language.conv_width", "8", "9"}},
      {both, {"--module.language.rope_theta=0.5"}, {"rope_theta", "0 or a number from 1 to", "found 0.5"}},
      {both, {"--module.vision.norm_eps=1e-50"}, {"norm_eps", "found 1e-50, which is 0 in single precision"}},
  };
  for (const Mistake& m : mistakes) {
    std::string message = "no error";
    try {
      spec(m.text, m.overrides);
    } catch (const ConfigError& e) {
      message = e.what();
    }
    for (const std::string& part : m.told)
      EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' in: " << message;
  }
}

TEST(Specs, NoRealKeyTakesWhatIsNotANumberInSinglePrecision) {
  Schema schema;
  declare_model_keys(schema);
  int reals = 0;
  for (const Schema::Kind& kind : schema.kinds())
    for (const Key* key : schema.keys_of_kind(kind.name)) {
      if (!std::holds_alternative<double>(key->type)) continue;
      ++reals;
      for (const double bad : {-1.0, -1e-50, 1e-50, 1e-39, 1e39, 1e300, HUGE_VAL, -HUGE_VAL, double{NAN}})
        EXPECT_TRUE(key->objection(bad)) << kind.name << '.' << key->name << " takes " << bad;
    }
  EXPECT_GE(reals, 7);
}

// What lies beyond its range is a slip; products of what lies within it cannot overflow.
TEST(Specs, EveryIntegerKeyHasARange) {
  Schema schema;
  declare_run_keys(schema);
  declare_model_keys(schema);
  int integers = 0;
  const auto check = [&](const Key& key) {
    if (!std::holds_alternative<int64_t>(key.type)) return;
    ++integers;
    EXPECT_TRUE(std::isfinite(key.least) && std::isfinite(key.most)) << key.name << ": " << key.expected();
    EXPECT_LE(key.most, key.name == "train.seed" ? 0x1p63 : 1e9) << key.name;
  };
  for (const Key& key : schema.all()) check(key);
  for (const Schema::Kind& kind : schema.kinds())
    for (const Key* key : schema.keys_of_kind(kind.name)) check(*key);
  EXPECT_GE(integers, 30);
}

// All keys of a module fix the model, but for those of initial values and of how sums are grouped.
TEST(Specs, KeysSayWhatTheyFix) {
  Schema schema;
  declare_model_keys(schema);
  Strings free;
  for (const Schema::Kind& kind : schema.kinds())
    for (const Key* key : schema.keys_of_kind(kind.name)) {
      if (key->fixes.empty())
        free.push_back(kind.name + '.' + key->name);
      else
        EXPECT_EQ(key->fixes, kModel) << key->name;
    }
  EXPECT_EQ(free, (Strings{"vit.init_std", "vit.position_std", "hybrid.init_std", "hybrid.ssm_chunk",
                           "hybrid.embedding_std"}));
}

}  // namespace
}  // namespace mimo
