#include "parallel/layout.h"

#include <gtest/gtest.h>

#include "tensor/error.h"

namespace mimo {
namespace {

using Lines = std::vector<std::pair<std::string, std::string>>;
const std::vector<std::string> two = {"vision", "language"};
const std::vector<std::string> three = {"vision", "audio", "language"};

std::string parsed(const Lines& lines, const std::vector<std::string>& modules, int world) {
  return to_string(parse_layout(lines, modules, world));
}

TEST(Layout, ReadsAnyOrderAndSubset) {
  EXPECT_EQ(parsed({{"vision", "tp1,dp2@0"}, {"language", "tp2,pp2,dp1@2"}}, two, 6),
            "vision=tp1,dp2@0 language=tp2,pp2,dp1@2");
  EXPECT_EQ(parsed({{"vision", " DP2 , TP1 "}, {"language", "pp2,Tp2, dp1 @ 2"}}, two, 6),
            "vision=tp1,dp2@0 language=tp2,pp2,dp1@2");
  EXPECT_EQ(parsed({{"vision", "vp1,etp1,ep1,cp1,dp1"}, {"language", "dp1"}}, two, 2),
            "vision=tp1,dp1@0 language=tp1,dp1@1");
  EXPECT_EQ(parsed({{"language", "dp1@0"}, {"vision", "dp1@1"}}, two, 2),
            "language=tp1,dp1@0 vision=tp1,dp1@1")
      << "file order is kept";
}

TEST(Layout, FillsOffsetsOverFreeRanksExplicitOnesFirst) {
  EXPECT_EQ(parsed({{"vision", "dp2"}, {"language", "tp2,dp1"}}, two, 4),
            "vision=tp1,dp2@0 language=tp2,dp1@2");
  EXPECT_EQ(parsed({{"vision", "dp2"}, {"language", "tp2,dp1@0"}}, two, 4),
            "vision=tp1,dp2@2 language=tp2,dp1@0");
  EXPECT_EQ(parsed({{"vision", "dp1"}, {"audio", "dp2@1"}, {"language", "dp2"}}, three, 5),
            "vision=tp1,dp1@0 audio=tp1,dp2@1 language=tp1,dp2@3");
}

TEST(Layout, FillsTheOneMissingDp) {
  EXPECT_EQ(parsed({{"vision", "dp2"}, {"language", "tp2"}}, two, 8), "vision=tp1,dp2@0 language=tp2,dp3@2");
  EXPECT_EQ(parsed({{"vision", "tp1"}, {"language", "tp2,pp2,dp1"}}, two, 7),
            "vision=tp1,dp3@0 language=tp2,pp2,dp1@3");
  EXPECT_EQ(parsed({{"vision", "@0"}, {"language", "tp2,dp1"}}, two, 3),
            "vision=tp1,dp1@0 language=tp2,dp1@1");
  EXPECT_EQ(parsed({{"vision", "tp2@0"}, {"language", "pp2,dp2@0"}}, two, 4),
            "vision=tp2,dp2@0 language=tp1,pp2,dp2@0")
      << "at the same offset: over the same ranks";
}

// Modules share all ranks, some of them, or none, in any mixture.
TEST(Layout, PlacementIsFree) {
  for (const Lines& lines : std::vector<Lines>{
           {{"vision", "tp1,dp4@0"}, {"language", "tp2,pp2,dp1@0"}},  // colocated
           {{"vision", "tp1,dp3@0"}, {"language", "tp2,dp1@2"}},      // one rank shared
           {{"vision", "tp2,dp1@2"}, {"language", "tp1,pp3,dp1@0"}},  // the other way round
           {{"vision", "tp1,dp4@0"}, {"language", "tp1,dp2@1"}},      // within the other
           {{"vision", "tp1,dp2@0"}, {"audio", "tp2,dp1@0"}, {"language", "tp1,dp2@2"}},  // two together
           {{"vision", "tp1,dp1@0"},
            {"audio", "tp1,dp1@3"},
            {"language", "tp2,pp2,dp1@0"}},  // each on a part
           {{"vision", "tp1,dp2@0"},
            {"audio", "tp1,dp2@1"},
            {"language", "tp1,pp2,dp1@2"}}}) {  // a staircase
    std::vector<std::string> modules;
    std::string text;
    for (const auto& [name, grid] : lines) {
      modules.push_back(name);
      text += (text.empty() ? "" : " ") + name + "=" + grid;
    }
    EXPECT_EQ(parsed(lines, modules, 4), text);
  }
}

TEST(Layout, FillsMixedPlacement) {
  // Explicit offsets first; the others take ranks that are free.
  EXPECT_EQ(parsed({{"vision", "dp1"}, {"audio", "dp2@0"}, {"language", "tp2,dp1@0"}}, three, 3),
            "vision=tp1,dp1@2 audio=tp1,dp2@0 language=tp2,dp1@0");
  // The missing dp: what is free, wherever others share ranks.
  EXPECT_EQ(parsed({{"vision", "dp2@0"}, {"audio", "dp2@1"}, {"language", "tp2"}}, three, 7),
            "vision=tp1,dp2@0 audio=tp1,dp2@1 language=tp2,dp2@3");
  // From its offset on, ranks of others too ...
  EXPECT_EQ(parsed({{"vision", "dp4@0"}, {"language", "tp2@2"}}, two, 4),
            "vision=tp1,dp4@0 language=tp2,dp1@2");
  EXPECT_EQ(parsed({{"vision", "dp4@0"}, {"language", "tp2@2"}}, two, 6),
            "vision=tp1,dp4@0 language=tp2,dp2@2");
  EXPECT_EQ(parsed({{"vision", "dp3@0"}, {"audio", "dp1"}, {"language", "@2"}}, three, 6),
            "vision=tp1,dp3@0 audio=tp1,dp1@5 language=tp1,dp3@2");
  // ... and where several begin there, those of the widest.
  EXPECT_EQ(parsed({{"vision", "dp1@0"}, {"audio", "dp4@0"}, {"language", "tp2@0"}}, three, 4),
            "vision=tp1,dp1@0 audio=tp1,dp4@0 language=tp2,dp2@0");
}

TEST(Layout, DefaultRunsOnAnyNumberOfRanks) {
  EXPECT_EQ(parsed({}, two, 1), "vision=tp1,dp1@0 language=tp1,dp1@0");
  EXPECT_EQ(parsed({}, two, 2), "vision=tp1,dp1@0 language=tp1,dp1@1");
  EXPECT_EQ(parsed({}, two, 5), "vision=tp1,dp5@0 language=tp1,dp5@0") << "none waits for a dearer module";
  EXPECT_EQ(parsed({}, three, 2), "vision=tp1,dp2@0 audio=tp1,dp2@0 language=tp1,dp2@0");
  EXPECT_EQ(parsed({}, three, 3), "vision=tp1,dp1@0 audio=tp1,dp1@1 language=tp1,dp1@2");
  EXPECT_EQ(parsed({}, three, 5), "vision=tp1,dp5@0 audio=tp1,dp5@0 language=tp1,dp5@0");
  EXPECT_EQ(parsed({}, {"language"}, 3), "language=tp1,dp3@0");
}

TEST(Layout, PrintsWhatItReads) {
  for (int world = 1; world <= 9; ++world) {
    const Layout a = parse_layout({}, three, world);
    Lines lines;
    for (const auto& [name, grid] : a.modules) lines.emplace_back(name, to_string(grid));
    EXPECT_EQ(parse_layout(lines, three, world).modules, a.modules);
  }
}

struct Bad {
  const char* name;
  Lines lines;
  std::vector<std::string> modules;
  int world;
  std::vector<std::string> says;  // every one of these is in the message
};

class BadLayout : public testing::TestWithParam<Bad> {};

TEST_P(BadLayout, IsRefusedByName) {
  const Bad& bad = GetParam();
  try {
    const Layout l = parse_layout(bad.lines, bad.modules, bad.world);
    FAIL() << "accepted as " << to_string(l);
  } catch (const ConfigError& e) {
    const std::string message = e.what();
    for (const std::string& part : bad.says)
      EXPECT_NE(message.find(part), std::string::npos) << "\"" << part << "\" in: " << message;
  }
}

Lines vision(const std::string& text) { return {{"vision", text}, {"language", "dp1"}}; }

const std::vector<Bad> kBad = {
    Bad{"Empty", vision(""), two, 2, {"[layout.vision]", "found nothing", "hint: "}},
    Bad{"Spaces", vision("  "), two, 2, {"[layout.vision]", "found nothing"}},
    Bad{"UnknownSize", vision("tp1,xp2"), two, 2, {"[layout.vision]", "tp, cp, pp or dp", "\"xp2\""}},
    Bad{"TrailingComma", vision("tp1,"), two, 2, {"[layout.vision]", "found \"\""}},
    Bad{"EqualsSign", vision("tp=1"), two, 2, {"[layout.vision]", "tp: ", "\"=1\""}},
    Bad{"NoNumber", vision("dp"), two, 2, {"[layout.vision]", "dp: ", "positive", "found \"\""}},
    Bad{"Zero", vision("dp0"), two, 2, {"[layout.vision]", "dp: ", "positive", "found 0"}},
    Bad{"Zeros", vision("tp000"), two, 2, {"[layout.vision]", "tp: ", "found 0"}},
    Bad{"Negative", vision("dp-1"), two, 2, {"[layout.vision]", "dp: ", "\"-1\""}},
    Bad{"Fraction", vision("dp1.5"), two, 2, {"[layout.vision]", "dp: ", "\"1.5\""}},
    Bad{"Huge", vision("dp99999999999999999999"), two, 2, {"[layout.vision]", "at most 100000"}},
    Bad{"JustTooLarge", vision("dp100001"), two, 2, {"at most 100000", "found 100001"}},
    Bad{"LargeProduct",
        vision("tp65536,pp100000,dp100000"),
        two,
        2,
        {"[layout.vision]", "tp*cp*dp*pp = 65536*1*100000*100000 = 655360000000000"}},
    Bad{"SizeTwice", vision("tp1,TP1"), two, 2, {"[layout.vision]", "tp is given twice"}},
    Bad{"OffsetMissing", vision("dp1@"), two, 2, {"[layout.vision]", "offset: ", "found \"\""}},
    Bad{"OffsetTwice", vision("dp1@0@1"), two, 2, {"[layout.vision]", "offset: ", "\"0@1\""}},
    Bad{"OffsetNegative", vision("dp1@-1"), two, 2, {"[layout.vision]", "offset: ", "\"-1\""}},
    Bad{"OffsetBeforeSizes", vision("@0,dp1"), two, 2, {"[layout.vision]", "\"0,dp1\""}},
    Bad{"TpThree",
        vision("tp3,dp1"),
        two,
        4,
        {"[layout.vision]", "tp: expected a power of two, found 3", "tp2 or tp4"}},
    Bad{"CpTwo", vision("cp2,dp1"), two, 3, {"[layout.vision]", "context parallelism", "found cp2"}},
    Bad{"VirtualStages", vision("pp2,vp2,dp1"), two, 3, {"[layout.vision]", "virtual stages", "found vp2"}},
    Bad{"Experts", vision("ep2,dp2"), two, 3, {"[layout.vision]", "ep: expert parallelism", "found ep2"}},
    Bad{"ExpertsCut",
        vision("etp2,dp2"),
        two,
        3,
        {"[layout.vision]", "etp: expert parallelism", "found etp2"}},
    Bad{"UnknownModule",
        {{"vison", "dp1"}, {"language", "dp1"}},
        two,
        2,
        {"[layout.vison]", "unknown module", "did you mean vision?"}},
    Bad{"MissingModule", {{"vision", "dp1"}}, two, 2, {"[layout.language]", "missing", "vision, language"}},
    Bad{"ModuleTwice",
        {{"vision", "dp1"}, {"vision", "dp1"}, {"language", "dp1"}},
        two,
        3,
        {"[layout.vision]", "given twice"}},
    Bad{"TwoMissingDps",
        {{"vision", "tp1"}, {"language", "tp2"}},
        two,
        4,
        {"[layout.language]", "at most one module without dp", "vision and language"}},
    Bad{"DpDoesNotDivide",
        {{"vision", "dp1"}, {"language", "tp2"}},
        two,
        4,
        {"[layout.language]", "tp*cp*pp = 2 ranks, found 3", "leave of 4"}},
    Bad{"NothingLeftForDp",
        {{"vision", "dp4"}, {"language", "tp2"}},
        two,
        4,
        {"[layout.language]", "found 0"}},
    Bad{"NegativeLeftForDp",
        {{"vision", "dp9"}, {"language", "tp2"}},
        two,
        4,
        {"[layout.language]", "found 0"}},
    Bad{"DpOfTheSharedRanks",
        {{"vision", "tp4@0"}, {"language", "dp6@0"}},
        two,
        6,
        {"[layout.vision]", "tp*cp*pp = 4 ranks, found 6", "the ranks of language"}},
    Bad{"WorldTooSmall",
        {{"vision", "dp2@0"}, {"language", "tp2,pp2,dp1@2"}},
        two,
        5,
        {"[layout.language]", "at most 5", "tp*cp*dp*pp = 2*1*1*2 = 4", "from rank 2", "needs 6",
         "mpirun -n 6"}},
    Bad{"NoRoom",
        {{"vision", "dp2"}, {"language", "tp2,dp2"}},
        two,
        5,
        {"[layout.language]", "no room", "2*1*2*1 = 4", "found 3"}},
    Bad{"NoRoomInARow",
        {{"vision", "dp1@1"}, {"language", "dp2"}},
        two,
        3,
        {"[layout.language]", "no room", "found 1"}},
    Bad{"DpOfSharedRanksDoesNotDivide",
        {{"vision", "dp4@0"}, {"language", "tp2@3"}},
        two,
        6,
        {"[layout.language]", "tp*cp*pp = 2 ranks, found 3", "leave of 6, with 1 of theirs from rank 3"}},
    Bad{"LeadingGap",
        {{"vision", "dp1@1"}, {"language", "dp1@2"}},
        two,
        3,
        {"[layout]", "idle ranks", "none on rank 0"}},
    Bad{"MiddleGap", {{"vision", "dp1@0"}, {"language", "dp1@3"}}, two, 4, {"[layout]", "none on ranks 1-2"}},
    Bad{"Uncovered",
        {{"vision", "dp1@0"}, {"language", "tp2,dp1@1"}},
        two,
        5,
        {"[layout]", "on each of the 5 ranks", "none on ranks 3-4", "2*1*1*1 = 2", "mpirun -n 3"}},
    Bad{"ColocatedUncovered",
        {{"vision", "dp2@0"}, {"language", "dp2@0"}},
        two,
        3,
        {"[layout]", "none on rank 2"}},
    Bad{"SharedUncovered",
        {{"vision", "dp2@0"}, {"language", "dp2@1"}},
        two,
        4,
        {"[layout]", "none on rank 3", "vision on ranks 0-1", "language on ranks 1-2"}}};
INSTANTIATE_TEST_SUITE_P(All, BadLayout, testing::ValuesIn(kBad),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace mimo
