// The figures that people read: those of report.html are those of summary.json and metrics.jsonl, those of a
// plan are those by hand, and the rows of --profile add up.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <regex>

#include "data/tokenizer.h"
#include "data/write_dataset.h"
#include "io/file.h"
#include "io/metrics.h"
#include "tests/data/tokens.h"
#include "tests/tools/program.h"
#include "tools/run/report.h"

namespace mimo {
namespace {

constexpr const char* kLicence = "a test's, <free> & \"open\"";

// "<begin><image>=ANSWER<end>" with an image of 8 x 8, or "<begin>1+2=ANSWER<end>"; the answer counts.
Sample sample(const std::string& answer, int kind, bool image) {
  Sample s;
  s.tokens =
      digits_tokenizer().encode(std::string(image ? "<begin><image>=" : "<begin>1+2=") + answer + "<end>");
  s.counted.assign(s.tokens.size(), 0);
  std::fill(s.counted.end() - static_cast<int64_t>(answer.size()) - 1, s.counted.end(), 1);
  s.kind = kind, s.length = static_cast<int>(answer.size());
  if (image) {
    s.items.push_back({1, 0, {1, 1, 8, 8}, {}});
    for (int i = 0; i < 64; ++i) s.items[0].bytes.push_back(static_cast<uint8_t>(i * 37 + kind * 11));
  }
  return s;
}

// Training shows one answer alone, which is what is read ever after.
std::vector<Sample> heldout() {
  return {sample("1", 0, true), sample("21", 0, true), sample("1", 0, true), sample("2", 0, true),
          sample("1", 1, true), sample("3", 1, false), sample("1", 1, false)};
}

class Figures : public testing::Test {
 protected:
  Figures() {
    const std::vector<Sample> held = heldout();
    write_dataset(files_ / "data.h5",
                  {.vocab = kVocab,
                   .modalities = {{.name = "image", .mean = {0.5}, .std = {0.5}}},
                   .kinds = {"plain", "mixed"},
                   .license = kLicence},
                  {{"train", 16, 16, [](int64_t) { return sample("1", 0, true); }},
                   {"heldout", 7, 4, [&](int64_t i) { return held.at(static_cast<size_t>(i)); }}});
    write_text(files_ / "tiny.toml", "[data]\npath = \"" + (files_ / "data.h5").string() + R"("
[train]
steps = 30
global_batch = 8
micro_batch = 2
lr = 1e-2
[checkpoint]
every = 0
[module.vision]
kind = "vit"
hidden = 32
layers = 1
heads = 4
ffn = 32
patch = 4
grid = 12
projector = "affine"
[module.language]
kind = "hybrid"
pattern = "-"
hidden = 32
heads = 4
kv_heads = 4
head_dim = 8
ffn = 64
)");
  }
  std::string run(int ranks, const std::string& command) {
    const Outcome o = run_mimo(ranks, command + " --config " + (files_ / "tiny.toml").string() +
                                          " --run.dir=" + (files_ / "run").string());
    EXPECT_EQ(o.status, 0) << o.output;
    return o.output;
  }
  std::vector<StepMetrics> metrics() const { return read_metrics(files_ / "run" / "metrics.jsonl"); }

  TempDir files_;
};

// All that a pattern finds in a text: what its groups hold.
std::vector<std::vector<std::string>> found(const std::string& text, const std::string& pattern) {
  std::vector<std::vector<std::string>> out;
  const std::regex regex(pattern);
  for (std::sregex_iterator i(text.begin(), text.end(), regex), end; i != end; ++i) {
    out.emplace_back();
    for (size_t group = 1; group < i->size(); ++group) out.back().push_back((*i)[group]);
  }
  return out;
}

std::string text_of(double x, int digits) {
  char s[64];
  std::snprintf(s, sizeof s, "%.*f", digits, x);
  return s;
}

std::vector<uint8_t> from_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<uint8_t> bytes;
  unsigned bits = 0;
  int count = 0;
  for (const char c : text)
    if (c != '=') {
      bits = bits << 6 | static_cast<unsigned>(digits.find(c)), count += 6;
      if (count >= 8) count -= 8, bytes.push_back(static_cast<uint8_t>(bits >> count));
    }
  return bytes;
}

TEST_F(Figures, OfTheReportAreThoseOfTheRun) {
  run(2, "train --eval.every=10 --eval.samples=4");
  const auto s = nlohmann::json::parse(read_text(files_ / "run" / "summary.json"));
  const std::string page = read_text(files_ / "run" / "report.html");

  // Four of seven are right, and two of the four that make the headline.
  EXPECT_EQ(s["eval"]["exact_match"], 0.5);
  EXPECT_EQ(s["eval"]["exact_match_samples"], 4);
  EXPECT_EQ(s["eval"]["samples"], 7);
  EXPECT_EQ(s["eval"]["by_length"], nlohmann::json::parse("{\"1\": 0.6666666666666666, \"2\": 0.0}"));
  EXPECT_EQ(s["eval"]["by_kind"], nlohmann::json::parse("{\"plain\": 0.5, \"mixed\": 0.6666666666666666}"));
  const std::vector<StepMetrics> lines = metrics();
  ASSERT_EQ(lines.size(), 30u);
  double seconds = 0, tokens = 0;
  for (const StepMetrics& m : lines) seconds += m.step_seconds, tokens += static_cast<double>(m.tokens);
  EXPECT_EQ(tokens, 30 * 8 * 4) << "of a sample the last token is no row";
  EXPECT_NEAR(s["train_seconds"], seconds, 1e-9 * seconds);
  EXPECT_NEAR(s["tokens_per_second"], tokens / seconds, 1e-9 * tokens / seconds);
  EXPECT_NEAR(s["step_seconds"]["measured"], seconds / 30, 1e-9);
  EXPECT_EQ(s["final_loss"], lines.back().loss.value());
  EXPECT_EQ(s["steps"], 30);

  std::map<std::string, std::string> large, facts;
  for (const auto& f : found(page, "<div><b>([^<]*)</b><span>([^<]*)</span></div>")) large[f[1]] = f[0];
  EXPECT_EQ(large, (std::map<std::string, std::string>{
                       {"exact match on 4 held-out samples", "0.5000"},
                       {"loss on all 7 held-out samples", text_of(s["eval"]["loss"], 4)},
                       {"steps", "30"},
                       {"training time", text_of(seconds, 0) + " s"},
                       {"tokens a second", text_of(s["tokens_per_second"], 0)}}));
  for (const auto& f : found(page, "<tr><td>([^<]*)</td><td>([^<]*)</td></tr>")) facts[f[0]] = f[1];
  EXPECT_EQ(facts["status"], "finished");
  EXPECT_EQ(facts["skipped steps"], "0");
  EXPECT_EQ(facts["ranks"], "2, idle " + text_of(100 * s["idle"].get<double>(), 0) + " % of the time");
  EXPECT_EQ(facts["a step"], "8 samples in 4 waves");
  EXPECT_EQ(facts["measured step"], text_of(1000 * s["step_seconds"]["measured"].get<double>(), 2) + " ms");
  EXPECT_EQ(facts["held out"], "mixed: 0.6667 of 3, plain: 0.5000 of 4");
  EXPECT_EQ(facts["data"], (files_ / "data.h5").string());
  EXPECT_EQ(facts["source"], "a test's, &lt;free&gt; &amp; &quot;open&quot;");

  // Bars: of the modules' times and of the answers by length, the largest of each over the whole width.
  std::vector<std::vector<std::string>> bars;
  const auto add = [&](const std::string& name, double value, double most, int digits) {
    bars.push_back({name, text_of(100 * value / most, 1), text_of(value, digits)});
  };
  double most = 0;
  for (const auto& [name, ms] : s["milliseconds_per_step"].items()) most = std::max(most, ms.get<double>());
  for (const char* name : {"vision forward", "vision backward", "language forward", "language backward",
                           "reduce", "update", "waiting"})
    add(name, s["milliseconds_per_step"].at(name), most, 1);
  add("1", 2.0 / 3, 2.0 / 3, 3), add("2", 0, 1, 3);
  EXPECT_EQ(found(page,
                  "<tr><td>([^<]*)</td><td class=\"bar\"><span style=\"width:([0-9.]+)%\"></span></td><td "
                  "class=\"n\">([^<]*)</td></tr>"),
            bars);

  // Points of the curves: training loss, the loss of the curve's held-out samples, their exact match.
  std::vector<std::vector<std::string>> points;
  for (const StepMetrics& m : lines) points.push_back({std::to_string(m.step), text_of(m.loss.value(), 4)});
  for (const char* name : {"held_out_loss", "held_out_exact_match"})
    for (const StepMetrics& m : lines)
      for (const auto& [key, value] : m.more)
        if (key == name) points.push_back({std::to_string(m.step), text_of(value, 4)});
  EXPECT_EQ(points.size(), 30u + 3 + 3);
  EXPECT_EQ(found(page, "<title>step ([0-9]+): ([0-9.]+)</title>"), points);

  EXPECT_EQ(found(page, "<code>([^<]*)</code>"),
            (std::vector<std::vector<std::string>>{{"vision = tp1,dp1@0"}, {"language = tp1,dp1@1"}}));

  // Every sample is shown once: its images, or its text; what was read, and what it is where that is another.
  std::vector<std::vector<std::string>> right, wrong;
  for (const Sample& h : heldout()) {
    const std::string answer = digits_tokenizer().decode({h.tokens.end() - 1 - h.length, h.tokens.end() - 1});
    (answer == "1" ? right : wrong).push_back({h.items.empty() ? "1+2= " : "<img>", answer});
  }
  const std::string brief = std::regex_replace(
      page, std::regex("<img alt=\"[^\"]*\" src=\"data:image/png;base64,[^\"]*\">"), "<img>");
  EXPECT_EQ(found(brief, "<div class=\"card\">(<img>|[^<]*)<b>([^<]*)</b></div>"), right);
  EXPECT_EQ(found(brief, "<div class=\"card wrong\">(<img>|[^<]*)<b>1[^<]*</b>, is <b>([^<]*)</b></div>"),
            wrong);
  const auto images = found(page, "<img alt=\"([^\"]*)\" src=\"data:image/png;base64,([^\"]*)\">");
  ASSERT_EQ(images.size(), 5u);
  EXPECT_EQ(from_base64(images[0][1]), encode_png(heldout()[0].items[0].image()));
  EXPECT_EQ(from_base64(images[2][1]), encode_png(heldout()[4].items[0].image()))
      << "the third that is right";
  EXPECT_EQ(images[3][0], "21");
}

// Where lines lie: steps from 52 to 540, values from 236 up to 12 between the ends of their axis, here from
// 0.1 to 10 and from 0.2 to 1.
TEST(Report, DrawsItsCurvesToScale) {
  Report r;
  r.loss.points = {{0, 10}, {5, 1}, {20, 0.1}, {10, NAN}, {15, 0}};  // what is no number above 0 has no place
  r.figure = {"Exact match", {{10, 0.25}, {20, 1}}};
  r.held_out.points = {{20, 1}};
  const TempDir files;
  write_report(r, files / "report.html");
  EXPECT_EQ(found(read_text(files / "report.html"), "<polyline points=\"([^\"]*)\""),
            (std::vector<std::vector<std::string>>{
                {"52.0,12.0 174.0,124.0 540.0,236.0 "}, {"540.0,124.0 "}, {"296.0,222.0 540.0,12.0 "}}));
}

// All samples alike, at a million operations a second and nothing else that takes time. A sample has 4 rows
// of text: an MLP 4 * 32 * 64 each, and 2 * 32 * 259 for each of two that count. Its image has 4 patches:
// embedded 2 * 16 * 32, a block 8 * 32^2 + 4 * 32 * 32 + 4 * 32 * 4 each, and one row of them projected, 2 *
// 128 * 32.
TEST_F(Figures, OfThePlanAreThoseByHand) {
  // Of a sample's forward; backward takes twice as much, but pixels take no gradient.
  const double language = 4 * 8192 + 2 * 16576, embed = 4 * 1024, vision = embed + 4 * 12800 + 8192;
  const std::string rates =
      "--machine.flops=1e6 --machine.memory=1e18 --machine.latency=1e-18 --machine.bandwidth=1e18 ";
  const auto expect = [](const std::string& plan, const std::string& what) {
    EXPECT_NE(plan.find(what), std::string::npos) << what << "\nin " << plan;
  };
  const auto step = [](double ms, double bubbles) {
    return ": " + text_of(ms, 2) + " ms, bubbles " + text_of(bubbles, 0) + " %\n";
  };
  const double all = 8 * (3 * (vision + language) - embed) / 1000;
  const std::string alone = run(0, "plan --ranks=1 " + rates);
  expect(alone, "step of 8 samples in 4 waves" + step(all, 0));
  expect(alone, " rank 0\n");
  // 15,680 and 20,736 parameters of fp32 with gradient and two moments.
  expect(alone, "rank   0  weights, gradients, moments   583 KB");
  expect(alone, "busy 100 %  vision tp0 dp0 pp0, language tp0 dp0 pp0\n");
  expect(alone, "tensor parallel 0 of 0 B, between stages 0 of 0 B, gradients 0 of 0 B\n");

  // A wave at a time, of all samples: one rank works, the other waits. Kept are 320 numbers a row of a block
  // and 128 a projected row; 192 a row of the MLP and 2 * 32 + 259 where it counts.
  const std::string apart = run(0, "plan --ranks=2 --train.micro_batch=8 " + rates);
  expect(apart, "in 1 waves" + step(all, 50));
  expect(apart, "rank   0  weights, gradients, moments   251 KB  activations    45 KB  busy  " +
                    text_of(100 * 8 * (3 * vision - embed) / 1000 / all, 0) + " %  vision");
  expect(apart, "rank   1  weights, gradients, moments   332 KB  activations    45 KB  busy  51 %  language");
  expect(apart, "between stages 2 of 2.0 KB, gradients 0 of 0 B\n");  // 8 rows of 32, to and fro

  // Four waves: the language model never waits after the first.
  const double four = 2 * (vision + 4 * 3 * language + 2 * vision - embed) / 1000;
  expect(run(0, "plan --ranks=2 " + rates), "in 4 waves" + step(four, 100 * (1 - all / (2 * four))));

  // Two encoders: each rank sends a gradient of every parameter.
  expect(run(0, "plan --ranks=3 --layout.vision=dp2@0 --layout.language=dp1@2 " + rates),
         "gradients 2 of 125 KB\n");
}

TEST_F(Figures, OfTheProfileAddUp) {
  const std::string output = run(2, "train --profile --train.steps=20");
  const auto head = found(
      output, "profile of ([0-9]+) steps: ([0-9]+) tokens/s, ([0-9.]+) ms a step \\(median ([0-9.]+)\\)");
  ASSERT_EQ(head.size(), 1u) << output;
  EXPECT_EQ(head[0][0], "10") << "the first ten fill caches";
  double seconds = 0;
  std::vector<double> each;
  for (const StepMetrics& m : metrics())
    if (m.step > 10) seconds += m.step_seconds, each.push_back(m.step_seconds);
  std::sort(each.begin(), each.end());
  const double wall = 100 * seconds;  // milliseconds a step
  EXPECT_NEAR(std::stod(head[0][2]), wall, 0.005 + 1e-9);
  EXPECT_NEAR(std::stod(head[0][3]), 1000 * each[5], 0.005 + 1e-9);
  EXPECT_NEAR(std::stod(head[0][1]), 10 * 8 * 4 / seconds, 0.5 + 1e-6);

  std::vector<std::string> tables;
  for (size_t at = output.find("\nrank 0\n"); tables.size() < 2; at = output.find("\nrank 1\n")) {
    ASSERT_NE(at, std::string::npos) << output;
    tables.push_back(output.substr(at, output.find("\nrank ", at + 1) - at));
  }
  for (size_t rank = 0; rank < 2; ++rank) {
    const std::string& t = tables[rank];
    SCOPED_TRACE(t);
    const auto of = found(t, "of the ([0-9.]+) ms a step that it works, ([0-9.]+) in kernels");
    const auto waiting = found(t, "waiting for other ranks +([0-9.]+)");
    ASSERT_EQ(of.size(), 1u);
    // Figures are rounded to 0.0005 ms, these to 0.005 ms, shares to 0.05 %.
    const double own = std::stod(of[0][0]) + (waiting.empty() ? 0 : std::stod(waiting[0][0]));
    if (rank == 0) {
      EXPECT_NEAR(own, wall, 0.006);
    }
    // Name, ms, share and, of kernels, calls; those of kernels stand further right.
    double parts = 0, shares = 0, kernels = 0;
    std::set<std::string> rows;
    std::map<std::string, int> calls;
    for (const auto& row : found(t, "\n  (    )?([a-zA-Z][^\n]*?) +([0-9.]+) +([0-9.]+) %( +[0-9]+)?")) {
      const double ms = std::stod(row[2]), share = std::stod(row[3]);
      EXPECT_NEAR(share, 100 * ms / own, 0.05 + 100 * 0.006 / own) << row[1];
      if (row[0].empty())
        parts += ms, shares += share, rows.insert(row[1]);
      else
        kernels += ms, calls[row[1]] = std::stoi(row[4]);
    }
    const std::string module = rank == 0 ? "vision" : "language";
    for (const std::string& row :
         {module + " forward", module + " backward", std::string("reduce"), std::string("update")})
      EXPECT_TRUE(rows.contains(row)) << row;
    EXPECT_NEAR(shares, 100, 0.06 * static_cast<double>(rows.size()));
    EXPECT_NEAR(parts, own, 0.006 + 0.001 * static_cast<double>(rows.size()));
    EXPECT_NEAR(std::stod(of[0][1]), kernels, 0.005 + 0.001 * static_cast<double>(calls.size()));
    EXPECT_EQ(calls["AdamW<float>"], 1) << "a step";
    EXPECT_EQ(calls[rank == 0 ? "vision Attention<float>" : "language RmsNorm<float>"], rank == 0 ? 4 : 8);
  }
}

}  // namespace
}  // namespace mimo
