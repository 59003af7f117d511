// From configuration to model: what a correct one gives, and what each wrong one is told.
#include <gtest/gtest.h>

#include <cmath>

#include "nn/mimo.h"

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
               const DataSpec& data = {50, {{.name = "image", .channels = 3}}}) {
  Schema schema;
  declare_run_keys(schema);
  declare_model_keys(schema);
  return model_spec(parse_config(schema, text, "f.toml", overrides), data);
}

TEST(Specs, ModelOfAConfiguration) {
  const ModelSpec m = spec(
      std::string(kLanguage) + kVision,
      {"--train.dtype=bf16", "--train.seed=5", "--train.recompute=true", "--train.freeze=vision.*",
       "--module.vision.class_tokens=3", "--module.language.init_std=0", "--module.language.rope_theta=1e4"});
  EXPECT_EQ(m.dtype, DType::bf16);
  EXPECT_EQ(m.seed, 5u);
  EXPECT_TRUE(m.recompute);
  EXPECT_EQ(m.names(), (Strings{"language", "vision"}));  // in the file's order
  EXPECT_EQ(m.edges, (std::vector<ModelSpec::Edge>{{1, 0, 0, 0}}));
  EXPECT_EQ(m.predictor(), 0);
  const Module &l = m[0], &v = m[1];
  EXPECT_FALSE(m.freezing.trainable("vision.projector.norm.weight"));
  EXPECT_TRUE(m.freezing.trainable("language.lm_head.weight"));
  EXPECT_EQ(v.init_std, 0.02);
  EXPECT_EQ(l.init_std, 0);
  EXPECT_EQ(v.outputs()[0].width, 24);  // the language model's width
  EXPECT_EQ(v.items()->preprocessing.patch, 4);
  EXPECT_EQ(v.items()->preprocessing.merge, 2);
  EXPECT_EQ(v.items()->preprocessing.channels, 3);
  EXPECT_EQ(v.rows({9, 0, {{{4, 6, 6}, {2, 2, 1}}}}), 24 + 4 + 2 * 3);
  EXPECT_EQ(l.width(), 24);
  EXPECT_EQ(v.layers(), 2);
  EXPECT_EQ(l.layers(), 4);
  EXPECT_EQ(l.marks(), std::vector{2});
}

const std::string kBoth = std::string(kVision) + kLanguage;

std::string second(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

TEST(Specs, EncodersOfSeveralModalities) {
  const ModelSpec m = spec(kVision + second(kVision, "vision", "sound") + kLanguage,
                           {"--module.sound.modality=audio"}, {50, {{.name = "audio"}, {.name = "image"}}});
  EXPECT_EQ(m.names(), (Strings{"vision", "sound", "language"}));
  EXPECT_EQ(m.edges, (std::vector<ModelSpec::Edge>{{0, 0, 2, 0}, {1, 0, 2, 1}}));
  EXPECT_EQ(m[2].inputs()[0].name, "image");
  EXPECT_EQ(m[2].inputs()[1].name, "audio");
}

// What [edges] can say: chains, several consumers, ports by name.
TEST(Specs, EdgesConnectModules) {
  const std::string middle = "[module.middle]\nkind = \"projector\"\ntype = \"affine\"\n";
  const ModelSpec chain =
      spec("[edges]\nvision = \"middle\"\nmiddle = [\"language\"]\n" + middle + kLanguage + kVision,
           {"--module.vision.projector=none"});
  EXPECT_EQ(chain.names(), (Strings{"middle", "language", "vision"}));
  EXPECT_EQ(chain.edges, (std::vector<ModelSpec::Edge>{{2, 0, 0, 0}, {0, 0, 1, 0}}));  // sources first
  EXPECT_EQ(chain[0].width(), 4 * 32);
  EXPECT_EQ(chain[0].outputs()[0].width, 24);
  EXPECT_EQ(chain[0].modality(), 0);
  EXPECT_EQ(chain[0].rows({9, 0, {{{4, 6, 6}, {2, 2, 1}}}}), 7);

  const ModelSpec two = spec(kBoth + middle, {"--edges.vision=middle,features -> language.image@1",
                                              "--edges.middle=language.image"});
  EXPECT_EQ(two.edges, (std::vector<ModelSpec::Edge>{{0, 0, 2, 0}, {0, 0, 1, 0}, {2, 0, 1, 1}}));
  EXPECT_EQ(two[2].width(), 24);  // what the language model takes from the encoder, the projector takes too
}

TEST(Specs, TextAlone) { EXPECT_EQ(spec(kLanguage, {}, {50, {}}).names(), Strings{"language"}); }

struct Mistake {
  std::string text;
  Strings overrides;
  Strings told;  // parts of the message
};

TEST(Specs, EveryMistakeIsNamed) {
  const std::string both = kBoth, second_language = second(kLanguage, "language", "other"),
                    second_vision = second(kVision, "vision", "eye");
  const std::vector<Mistake> mistakes = {
      {both, {"--module.vision.kind=conv"}, {"module.vision.kind", "hybrid, projector, vit", "conv"}},
      {kVision, {}, {"[module]", "no language model", "hint: add [module.language]"}},
      {both + second_language, {}, {"module.other.kind", "a second language model", "language and other"}},
      {kLanguage, {}, {"[module]", "no encoder for modality image", "feeds language"}},
      {both + second_vision,
       {"--module.eye.patch=2"},
       {"module.eye", "modality image", "in another way than for vision"}},
      {both, {"--edges.vision=sight"}, {"edges.vision", "unknown module", "vision, language", "\"sight\""}},
      {both, {"--edges.eye=language"}, {"edges.eye", "unknown module", "\"eye\""}},
      {both, {"--edges.vision=vision"}, {"edges.vision", "vision cannot feed itself"}},
      {both, {"--edges.language=vision"}, {"edges.language", "language gives nothing"}},
      {both, {"--edges.vision=language,language"}, {"edges.vision", "the same edge twice"}},
      {both, {"--edges.vision=language.sound"}, {"edges.vision", "no such input", "image@0", "\"sound\""}},
      {both, {"--edges.vision=language.image@4"}, {"edges.vision", "no such input", "\"image@4\""}},
      {both, {"--edges.vision=language.image@1"}, {"no encoder for modality image"}},
      {both, {"--edges.vision=patches -> language"}, {"no such output", "features", "patches"}},
      {both, {"--module.vision.projector=none"}, {"vision -> language: widths differ", "24, found 128"}},
      {both + second_vision, {"--edges.vision=language"}, {"[edges]", "eye feeds no module"}},
      {both + "[module.m]\nkind = \"projector\"\n",
       {"--edges.vision=m", "--edges.m=language"},
       {"edges.vision", "vision -> m: no width"}},
      {both + "[module.m]\nkind = \"projector\"\n[module.n]\nkind = \"projector\"\n",
       {"--edges.vision=language", "--edges.m=n", "--edges.n=m"},
       {"edges.", "circle"}},
      {both + "[module.m]\nkind = \"projector\"\n",
       {"--edges.vision=language", "--edges.m=language.image"},
       {"nothing comes to m.features"}},
      {both, {"--train.freeze=visoin.*"}, {"train.freeze", "no parameter", "\"visoin.*\"", "vision."}},
      {both, {"--train.unfreeze=vision"}, {"train.unfreeze", "no parameter"}},
      {both, {"--module.vision.modality=audio"}, {"module.vision.modality", "one of image", "found audio"}},
      {both, {"--module.vision.hidden=36"}, {"module.vision.hidden", "multiple of 8", "found 36 / 4"}},
      {both, {"--module.vision.heads=3"}, {"module.vision.hidden", "found 32 / 3"}},
      {both, {"--module.vision.hidden=2080"}, {"module.vision.hidden", "at most 256", "found 2080 / 4"}},
      {both, {"--module.vision.activation=tanh"}, {"module.vision.activation", "gelu", "tanh"}},
      {both, {"--module.vision.projector=conv"}, {"module.vision.projector", "affine", "conv"}},
      {both, {"--module.language.pattern=MX-"}, {"module.language.pattern", "* - M S", "found 'X'"}},
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
  EXPECT_EQ(free, (Strings{"hybrid.init_std", "hybrid.embedding_std", "hybrid.ssm_chunk",
                           "projector.init_std", "vit.init_std", "vit.position_std"}));
}

}  // namespace
}  // namespace mimo
