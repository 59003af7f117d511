#include "io/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "io/file.h"
#include "tensor/error.h"
#include "tests/io/temp_dir.h"

namespace mimo {
namespace {

using Strings = std::vector<std::string>;

Schema schema() {
  Schema s;
  declare_run_keys(s);
  s.every_kind().boolean("freeze", "keep the weights").fallback(false);
  Keys& vit = s.kind("vit", "vision transformer");
  vit.integer("hidden", "width").range(8);
  vit.integers("sizes", "of the grid").fallback(std::vector<int64_t>{2, 3}).range(1, 9);
  vit.strings("stages", "names").fallback(Strings{}).one_of({"a", "b"});
  Keys& lm = s.kind("hybrid", "language model");
  lm.string("pattern", "layers");
  lm.integer("hidden", "width").fallback(64);
  return s;
}

Config parse(const std::string& text, const Strings& overrides = {}) {
  return parse_config(schema(), text, "f.toml", overrides);
}
std::string error(const std::string& text, const Strings& overrides = {}) {
  return thrown<ConfigError>([&] { parse(text, overrides); });
}

const char* const kModel = R"(
resume = 40
[train]
steps = 10   # a comment
lr = 1
[module.vision]
kind = "vit"
hidden = 16
sizes = [4, 5]
[module.language]
kind = "hybrid"
pattern = "M*-|M*-"
[module.audio]
hidden = 8
kind = "vit"
[layout]
vision = "tp1,dp2@0"
language = "tp2@2"
audio = "tp1"
)";

TEST(Config, ReadsAFileAndFillsInTheRest) {
  const Config c = parse(kModel);
  EXPECT_EQ(c.get<int64_t>("train.steps"), 10);
  EXPECT_EQ(c.get<double>("train.lr"), 1.0);
  EXPECT_EQ(c.get<double>("train.beta2"), 0.95);
  EXPECT_EQ(c.get<std::string>("resume"), "40");
  EXPECT_EQ(c.get<std::string>("train.dtype"), "f32");
  EXPECT_EQ(c.modules(), (Strings{"vision", "language", "audio"}));  // file order, not by name
  EXPECT_EQ(c.module("vision").get<std::vector<int64_t>>("sizes"), (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(c.module("audio").get<std::vector<int64_t>>("sizes"), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(c.get<int64_t>("module.language.hidden"), 64);
  EXPECT_FALSE(c.get<bool>("module.language.freeze"));
  ASSERT_EQ(c.layout().size(), 3u);
  EXPECT_EQ(c.layout()[0], std::pair(std::string("vision"), std::string("tp1,dp2@0")));
  EXPECT_EQ(c.layout()[2].first, "audio");
  EXPECT_EQ(c.place("train.steps"), "f.toml:4:1 train.steps");
  EXPECT_EQ(c.module("vision").place("hidden"), "f.toml:8:1 module.vision.hidden");
  EXPECT_EQ(c.place("train.seed"), "f.toml train.seed");
}

TEST(Config, MistakesOfTheProgramAreLogicErrors) {
  const Config c = parse(kModel);
  EXPECT_THROW(c.get<int64_t>("train.stesp"), std::logic_error);
  EXPECT_THROW(c.get<double>("train.steps"), std::logic_error);
  EXPECT_THROW(c.get<int64_t>("module.language.sizes"), std::logic_error);
  Schema s = schema();
  EXPECT_ANY_THROW(s.integer("train.steps", "again"));
  EXPECT_ANY_THROW(s.kind("vit", "again"));
  EXPECT_ANY_THROW(s.integer("new", "of another type").fallback("1"));
}

TEST(Config, OverridesWin) {
  const Config c = parse(
      kModel, {"--train.steps=20", "--train.dtype=bf16", "--run.name=\"a b\"", "--run.dir=x y=z",
               "--train.lr=1e-4", "--train.recompute=true", "--resume=never", "--module.vision.sizes=7,8",
               "--module.audio.sizes=[1, 2, 3]", "--module.audio.stages=a,b,a", "--layout.language=tp1@2",
               "--module.extra.kind=hybrid", "--module.extra.pattern=M-"});
  EXPECT_EQ(c.get<int64_t>("train.steps"), 20);
  EXPECT_EQ(c.get<std::string>("train.dtype"), "bf16");
  EXPECT_EQ(c.get<std::string>("run.name"), "a b");
  EXPECT_EQ(c.get<std::string>("run.dir"), "x y=z");
  EXPECT_EQ(c.get<double>("train.lr"), 1e-4);
  EXPECT_TRUE(c.get<bool>("train.recompute"));
  EXPECT_EQ(c.get<std::string>("resume"), "never");
  EXPECT_EQ(c.get<std::vector<int64_t>>("module.vision.sizes"), (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(c.get<std::vector<int64_t>>("module.audio.sizes"), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(c.get<Strings>("module.audio.stages"), (Strings{"a", "b", "a"}));
  EXPECT_EQ(c.layout()[1], std::pair(std::string("language"), std::string("tp1@2")));  // keeps its place
  EXPECT_EQ(c.modules(), (Strings{"vision", "language", "audio", "extra"}));
  EXPECT_EQ(c.place("train.steps"), "command line train.steps");
}

TEST(Config, TheResolvedFileReadsBackEqual) {
  const Strings odd = {"--run.name=quote\" slash\\ tab\t bell\a \xc3\xa9",
                       "--train.lr=1e-05",
                       "--train.eps=1e-30",
                       "--train.clip=100000000000000000000",
                       "--train.seed=9223372036854775807",
                       "--module.audio.stages=b,a",
                       "--module.vision.sizes=[]"};
  const Config c = parse(kModel, odd);
  const std::string text = c.to_toml("mimo 1.0\nMPI 4");
  EXPECT_TRUE(text.starts_with("# mimo 1.0\n# MPI 4\n# resume = \"40\"  # the checkpoint to go on from\n"));
  const Config again = parse(text);
  EXPECT_TRUE(c == parse(text, {"--resume=40"})) << text;
  EXPECT_EQ(again.get<std::string>("resume"), "auto") << "of one start: the record does not ask for it again";
  EXPECT_EQ(parse(text, {"--resume=40"}).to_toml("mimo 1.0\nMPI 4"), text);
  EXPECT_FALSE(c == parse(kModel));
  EXPECT_EQ(parse("").to_toml(), parse(parse("").to_toml()).to_toml());
}

struct Refusal {
  const char *text, *override, *message;
};
class ConfigRefuses : public testing::TestWithParam<Refusal> {};

TEST_P(ConfigRefuses, WithPlaceExpectedFoundAndHint) {
  const Refusal& r = GetParam();
  EXPECT_EQ(error(r.text, *r.override ? Strings{r.override} : Strings{}), r.message);
}

INSTANTIATE_TEST_SUITE_P(
    All, ConfigRefuses,
    testing::Values(
        Refusal{"[train]\nstesp = 1", "",
                "[f.toml:2:1 train.stesp] unknown key: expected one that exists, found train.stesp. hint: "
                "did you "
                "mean train.steps?"},
        Refusal{"steps = 1", "",
                "[f.toml:1:1 steps] unknown key: expected one that exists, found steps. hint: did you mean "
                "train.steps?"},
        Refusal{"[trian]\nsteps = 1", "",
                "[f.toml:1:2 trian] unknown key: expected one that exists, found trian. hint: did you mean "
                "train?"},
        Refusal{"", "--zzzzzzzzzzzz=1",
                "[command line zzzzzzzzzzzz] unknown key: expected one that exists, found zzzzzzzzzzzz. "
                "hint: --help "
                "lists all keys"},
        Refusal{"[module.v]\nkind = 'vit'\nhiden = 8", "",
                "[f.toml:3:1 module.v.hiden] unknown key: expected one that exists, of a module of kind vit, "
                "found "
                "module.v.hiden. hint: did you mean module.v.hidden?"},
        Refusal{"[module.v]\nkind = 'vit'\nhidden = 8\npattern = ''", "",
                "[f.toml:4:1 module.v.pattern] unknown key: expected one that exists, of a module of kind "
                "vit, found "
                "module.v.pattern. hint: --help lists all keys"},
        Refusal{"[train]\nsteps = 1.5", "",
                "[f.toml:2:1 train.steps] wrong value: expected an integer from 0 to 1000000000, found 1.5"},
        Refusal{"[train]\nsteps = '1'", "",
                "[f.toml:2:1 train.steps] wrong value: expected an integer from 0 to 1000000000, found "
                "\"1\", a string"},
        Refusal{"train.steps = -1", "",
                "[f.toml:1:7 train.steps] wrong value: expected an integer from 0 to 1000000000, found -1"},
        Refusal{
            "train.steps = [1]", "",
            "[f.toml:1:7 train.steps] wrong value: expected an integer from 0 to 1000000000, found a list"},
        Refusal{"train.lr = nan", "",
                "[f.toml:1:7 train.lr] wrong value: expected a number from 0 to 1000, found nan"},
        Refusal{"train.eps = 0", "",
                "[f.toml:1:7 train.eps] wrong value: expected a number above 0, at most 1000, found 0"},
        Refusal{"train.eps = 1e-50", "",
                "[f.toml:1:7 train.eps] wrong value: expected a number above 0, at most 1000, found 1e-50, "
                "which is 0 in single precision"},
        Refusal{"train.beta1 = 1.5", "",
                "[f.toml:1:7 train.beta1] wrong value: expected a number from 0, below 1, found 1.5"},
        Refusal{"train.beta1 = 1", "",
                "[f.toml:1:7 train.beta1] wrong value: expected a number from 0, below 1, found 1"},
        Refusal{"", "--train.beta2=0.99999999999",
                "[command line train.beta2] wrong value: expected a number from 0, below 1, found "
                "0.99999999999, which is 1 in single precision"},
        Refusal{"train.clip = 1e39", "",
                "[f.toml:1:7 train.clip] wrong value: expected a number from 0, found 1e+39, which is "
                "infinite in single precision"},
        Refusal{"train.recompute = 1", "",
                "[f.toml:1:7 train.recompute] wrong value: expected true or false, found 1"},
        Refusal{"run.name = 2001-01-01", "",
                "[f.toml:1:5 run.name] wrong value: expected a string, found 2001-01-01"},
        Refusal{"train.dtype = 'bf61'", "",
                "[f.toml:1:7 train.dtype] wrong value: expected one of f32, bf16, found \"bf61\". hint: did "
                "you mean "
                "bf16?"},
        Refusal{"resume = -1", "",
                "[f.toml:1:1 resume] wrong value: expected one of auto, never or a whole number, found -1"},
        Refusal{"resume = 'latest'", "",
                "[f.toml:1:1 resume] wrong value: expected one of auto, never or a whole number, found "
                "\"latest\""},
        Refusal{
            "", "--train.steps=many",
            "[command line train.steps] wrong value: expected an integer from 0 to 1000000000, found many"},
        Refusal{"", "--train.steps=",
                "[command line train.steps] wrong value: expected an integer from 0 to 1000000000, found "
                "nothing"},
        Refusal{"", "--train.steps=99999999999999999999",
                "[command line train.steps] wrong value: expected an integer from 0 to 1000000000, found "
                "99999999999999999999"},
        Refusal{
            "", "--train.steps=1\nx=2",
            "[command line train.steps] wrong value: expected an integer from 0 to 1000000000, found 1\nx=2"},
        Refusal{"", "--train.dtype=f16",
                "[command line train.dtype] wrong value: expected one of f32, bf16, found \"f16\". hint: did "
                "you mean "
                "bf16?"},
        Refusal{
            "", "--train.steps",
            "[command line] expected --section.key=value, found --train.steps. hint: --train.steps=VALUE"},
        Refusal{"", "train.steps=1", "[command line] expected --section.key=value, found train.steps=1"},
        Refusal{"[module.v]\nhidden = 8", "",
                "[f.toml:1:9 module.v] module.v.kind is missing: expected one of vit, hybrid, found nothing"},
        Refusal{"[module.v]", "",
                "[f.toml:1:9 module.v] module.v.kind is missing: expected one of vit, hybrid, found nothing"},
        Refusal{"[module.v]\nkind = 'vti'", "",
                "[f.toml:2:1 module.v.kind] wrong value: expected one of vit, hybrid, found \"vti\". hint: "
                "did you "
                "mean vit?"},
        Refusal{"[module.v]\nkind = 'vit'", "",
                "[f.toml module.v.hidden] missing: expected an integer from 8, found nothing. hint: width"},
        Refusal{"[module.v]\nkind = 'vit'\nhidden = 8\nsizes = [1, 10]", "",
                "[f.toml:4:1 module.v.sizes] wrong value: expected a list of integers from 1 to 9, found 10"},
        Refusal{"[module.v]\nkind = 'vit'\nhidden = 8", "--module.v.sizes=1,two",
                "[command line module.v.sizes] wrong value: expected a list of integers from 1 to 9, found "
                "\"two\", a "
                "string"},
        Refusal{"[module.v]\nkind = 'vit'\nhidden = 8\nstages = ['a', 'c']", "",
                "[f.toml:4:1 module.v.stages] wrong value: expected a list of one of a, b, found \"c\""},
        Refusal{
            "[module.'a b']\nkind = 'vit'", "",
            "[f.toml:1:9 module.a b] bad name: expected up to 64 letters, digits, _ and -, found \"a b\""},
        Refusal{"'train.steps' = 1", "",
                "[f.toml:1:1 train.steps] bad name: expected up to 64 letters, digits, _ and -, found "
                "\"train.steps\""},
        Refusal{"module = 1", "",
                "[f.toml:1:1 module] expected a section, found 1. hint: write [module], and its keys below"},
        Refusal{"[[module]]\nkind = 'vit'", "",
                "[f.toml:1:3 module] expected a section, found a list of sections. hint: write [module], and "
                "its keys below"},
        Refusal{"[[run]]\nname = 'a'", "",
                "[f.toml:1:3 run] expected a section, found a list of sections. hint: write [run], and its "
                "keys below"},
        Refusal{"[module]\nv = 'vit'", "",
                "[f.toml:2:1 module.v] expected a section, found \"vit\", a string. hint: write [module.v], "
                "and its keys below"},
        Refusal{"", "--train=1", "[command line train] expected a section, found 1. hint: --train.KEY=VALUE"},
        Refusal{"train.steps = {a = 1}", "",
                "[f.toml:1:7 train.steps] wrong value: expected an integer from 0 to 1000000000, found a "
                "table"},
        Refusal{"", "--train.steps={a=1}",
                "[command line train.steps] wrong value: expected an integer from 0 to 1000000000, found a "
                "table"},
        Refusal{"[train.steps]\na = 1", "",
                "[f.toml:1:8 train.steps] wrong value: expected an integer from 0 to 1000000000, found a "
                "section"},
        Refusal{"[layout]\nv = 1", "", "[f.toml:2:1 layout.v] wrong value: expected a string, found 1"},
        Refusal{"[layout.v]\ntp = 1", "",
                "[f.toml:1:9 layout.v] wrong value: expected a string, found a section"},
        Refusal{"train.steps = 2000.0", "",
                "[f.toml:1:7 train.steps] wrong value: expected an integer from 0 to 1000000000, found "
                "2000.0. hint: write 2000"},
        Refusal{"", "--train.steps=1e3",
                "[command line train.steps] wrong value: expected an integer from 0 to 1000000000, found "
                "1000.0. hint: write 1000"},
        Refusal{"", "--device=gpu",
                "[command line device] wrong value: expected one of auto, cpu, cuda, found \"gpu\". hint: "
                "did you mean cuda?"},
        Refusal{"train.dtype = 'float32'", "",
                "[f.toml:1:7 train.dtype] wrong value: expected one of f32, bf16, found \"float32\". hint: "
                "did you mean f32?"},
        Refusal{"", "--train.global_batch=9223372036854775807",
                "[command line train.global_batch] wrong value: expected an integer from 1 to 1000000, found "
                "9223372036854775807"},
        Refusal{"run.name = \"a\\u0000b\"", "",
                "[f.toml:1:5 run.name] wrong value: expected a string, found a zero byte in it"}));

// No real key takes a value that makes NaN in the kernels, which compute in single precision.
TEST(Config, NoRealKeyTakesWhatIsNotANumberInSinglePrecision) {
  Schema s;
  declare_run_keys(s);
  int reals = 0;
  for (const Key& key : s.all()) {
    if (!std::holds_alternative<double>(key.type)) continue;
    ++reals;
    EXPECT_EQ(key.objection(std::get<double>(*key.value)), std::nullopt) << key.name;
    for (const double bad : {-1.0, -1e-50, 1e-50, 1e-39, 1e39, 1e300, HUGE_VAL, -HUGE_VAL, double{NAN}})
      EXPECT_TRUE(key.objection(bad)) << key.name << " takes " << bad;
  }
  EXPECT_GE(reals, 8);
  Key theta;
  theta.type = 0.0;
  theta.range(1, 10).or_zero();
  EXPECT_EQ(theta.expected(), "0 or a number from 1 to 10");
  for (const double good : {0.0, 1.0, 10.0}) EXPECT_FALSE(theta.objection(good));
  for (const double bad : {0.5, 11.0, -0.5}) EXPECT_TRUE(theta.objection(bad));
}

TEST(Config, DifferencesNameWhatTheyFix) {
  const Config before = parse(kModel);
  const auto changes = [&](const std::string& text, const Strings& overrides) {
    Strings all;
    for (const Difference& d : differences(before, parse(text, overrides)))
      all.push_back(d.key + ": " + d.before + " -> " + d.now + (d.fixes.empty() ? "" : ", " + d.fixes));
    return all;
  };
  EXPECT_EQ(changes(kModel, {"--resume=never", "--device=cpu", "--resume.allow=train.seed"}), Strings{});
  EXPECT_EQ(changes(kModel, {"--train.lr=0.5", "--train.seed=2", "--layout.vision=tp1"}),
            (Strings{"train.seed: 1 -> 2, the order of the data", "train.lr: 1.0 -> 0.5"}));
  EXPECT_EQ(
      changes(kModel, {"--module.audio.hidden=9", "--module.vision.freeze=true", "--train.dtype=bf16"}),
      (Strings{"train.dtype: \"f32\" -> \"bf16\", the model",
               "module.vision.freeze: false -> true, the model", "module.audio.hidden: 8 -> 9, the model"}));
  std::string renamed = kModel;
  renamed.replace(renamed.find("module.language"), 15, "module.text");
  EXPECT_EQ(changes(renamed, {}), (Strings{"module.text.kind: nothing -> \"hybrid\", the model",
                                           "module.text.freeze: nothing -> false, the model",
                                           "module.text.pattern: nothing -> \"M*-|M*-\", the model",
                                           "module.text.hidden: nothing -> 64, the model",
                                           "module.language.kind: \"hybrid\" -> nothing, the model",
                                           "module.language.freeze: false -> nothing, the model",
                                           "module.language.pattern: \"M*-|M*-\" -> nothing, the model",
                                           "module.language.hidden: 64 -> nothing, the model"}));
}

// What is far too long is refused at once, in a message that a terminal can show.
TEST(Config, RefusesWhatIsFarTooLong) {
  const std::string much(1 << 20, 'x'), some(5000, 'x');
  const std::vector<std::string> messages = {error("", {"--" + much + "=1"}),
                                             error("", {"--train." + much + "=1"}),
                                             error("", {"--run.name=" + much}),
                                             error("", {"--train.steps=" + much}),
                                             error("", {much}),
                                             error("", {"--" + much}),
                                             error(much + " = 1"),
                                             error("[" + much + "]\na = 1"),
                                             error("[layout]\n" + much + " = 'a'"),
                                             error("run.name = '" + some + "'"),
                                             error("[layout]\nv = '" + some + "'"),
                                             error("train.steps = '" + much + "'"),
                                             error("train.dtype = '" + much + "'"),
                                             error("[module." + much + "]\nkind = 'vit'"),
                                             error("", {"--module.v.kind=" + some})};
  for (const std::string& m : messages) {
    EXPECT_TRUE(m.starts_with("[")) << m.substr(0, 500);
    EXPECT_LT(m.size(), 1000u) << m.substr(0, 500);
    EXPECT_CONTAINS(m, "expected");
  }
  EXPECT_EQ(messages[2], "[command line run.name] too long: expected at most 4096 bytes, found 1048576");
  TempDir dir;
  write_text(dir / "a.toml", "# " + much);
  EXPECT_CONTAINS(thrown<ConfigError>([&] { read_config(schema(), dir / "a.toml"); }),
                  "a.toml] not a configuration: expected at most 1048576 bytes, found 1048578");
}

TEST(Config, TheLastOverrideCounts) {
  const Config c = parse("[train]\nsteps = 1", {"--train.steps=2", "--train.seed=7", "--train.steps=3"});
  EXPECT_EQ(c.get<int64_t>("train.steps"), 3);
  EXPECT_EQ(c.get<int64_t>("train.seed"), 7);
  EXPECT_CONTAINS(error("[train]\nsteps = 1\nsteps = 2"), "[f.toml:3:");
}

TEST(Config, RefusesWhatIsNotToml) {
  EXPECT_CONTAINS(error("[train\nsteps = 1"), "[f.toml:1:7] not TOML: ");
  std::string deep = "a";  // a section in a section in a section
  for (int i = 0; i < 200000; ++i) deep += ".a";
  EXPECT_CONTAINS(error(deep + " = 1"),
                  "[f.toml] not a configuration: expected at most 10000 points, found 200000");
  EXPECT_CONTAINS(error("\nx = "), "[f.toml:2:");
  TempDir dir;
  EXPECT_CONTAINS(thrown<ConfigError>([&] { read_config(schema(), dir / "none.toml"); }),
                  "none.toml] cannot read");
}

TEST(Config, ReadsFromAFile) {
  TempDir dir;
  write_text(dir / "a.toml", "train.steps = 3\n");
  const Config c = read_config(schema(), dir / "a.toml");
  EXPECT_EQ(c.get<int64_t>("train.steps"), 3);
  EXPECT_EQ(c.place("train.steps"), (dir / "a.toml").string() + ":1:7 train.steps");
}

TEST(Config, HelpListsEveryKey) {
  const std::string help = schema().help();
  EXPECT_CONTAINS(help, "--train.steps=300");
  EXPECT_CONTAINS(help, "samples a step: an integer from 1 to 1000000\n");
  EXPECT_CONTAINS(help, "[module.NAME] kind = \"vit\": vision transformer");
  EXPECT_CONTAINS(help, "--module.NAME.hidden=...");
  EXPECT_CONTAINS(help, "width: an integer from 8 (required)\n");
}

}  // namespace
}  // namespace mimo
