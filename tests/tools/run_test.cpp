// What a run makes of trouble and of changes: it says how it ended, keeps what was good, names what is not as
// it was, and is evaluated as it was trained.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "io/checkpoint.h"
#include "io/file.h"
#include "io/hdf5.h"
#include "io/metrics.h"
#include "tests/tools/program.h"

namespace mimo {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class Run : public testing::Test {
 protected:
  Run() {
    if (files) return;
    files = std::make_unique<TempDir>();
    write_tiny_dataset(path("data.h5"));
    write_tiny_config(path("tiny.toml"), path("data.h5"));
    train(2, "done", "--train.steps=2 --checkpoint.every=1");
  }
  static std::string path(const std::string& name) { return (*files / name).string(); }
  static Outcome train(int ranks, const std::string& run, const std::string& more, int status = 0) {
    const Outcome o =
        run_mimo(ranks, "--config " + path("tiny.toml") + " --run.dir=" + path(run) + " " + more);
    EXPECT_EQ(o.status, status) << o.output;
    return o;
  }
  static fs::path copy_of_done(const std::string& name) {
    fs::copy(path("done"), path(name), fs::copy_options::recursive);
    return path(name);
  }
  static Json summary(const std::string& run) { return Json::parse(read_text(path(run) + "/summary.json")); }
  static std::vector<int64_t> checkpoints(const std::string& run) {
    std::vector<int64_t> steps;
    for (const auto& [step, directory] : list_checkpoints(path(run) + "/checkpoints")) steps.push_back(step);
    return steps;
  }

  static std::unique_ptr<TempDir> files;
};

std::unique_ptr<TempDir> Run::files;

// Sets the first element of a tensor, and the checksums with it.
void alter(const fs::path& checkpoint, const std::string& tensor, float value) {
  auto manifest = nlohmann::ordered_json::parse(read_text(checkpoint / "manifest.json"));
  const auto& box = manifest.at("tensors").at(tensor).at("boxes").at(0);
  const std::string file = box.at("file");
  const auto offset = h5::File::open(checkpoint / file).dataset(box.at("dataset")).file_offset();
  std::string bytes = read_text(checkpoint / file);
  bytes.replace(static_cast<size_t>(offset.value()), sizeof value,
                std::string(reinterpret_cast<const char*>(&value), sizeof value));
  write_text(checkpoint / file, bytes);
  manifest["files"][file]["xxh3"] = hash_file(checkpoint / file);
  manifest.erase("xxh3");
  manifest["xxh3"] = hash_text(manifest.dump());
  write_text(checkpoint / "manifest.json", manifest.dump());
}

// A moment so large that the next update makes its weight infinite; gradients and loss are finite until then.
const char* const kWeight = "language.layers.2.mixer.down_proj.weight";

TEST_F(Run, ThatDivergesFailsAndKeepsItsGoodCheckpoints) {
  for (const int ranks : {0, 2}) {
    const std::string name = "diverged" + std::to_string(ranks);
    const fs::path run = copy_of_done(name);
    alter(run / "checkpoints" / "step_00000002", std::string(kWeight) + "/exp_avg", 3e38f);
    const auto before = snapshot(run / "checkpoints");
    const Outcome o = train(ranks, name, "--train.steps=100 --checkpoint.every=1 --checkpoint.keep=1", 1);
    EXPECT_EQ(o.errors(), 1) << o.output;
    EXPECT_EQ(
        o.count("error: the run diverged; not finite after step 3 are " + std::string(kWeight) + "/value;"),
        1)
        << o.output;
    EXPECT_EQ(o.count("the newest checkpoint is that of step 2"), 1) << o.output;
    EXPECT_EQ(snapshot(run / "checkpoints"), before) << "not one was rotated away";
    const Json s = summary(name);
    EXPECT_EQ(s.at("status"), "diverged");
    EXPECT_TRUE(s.at("reason").get<std::string>().starts_with("the run diverged")) << s;
    EXPECT_TRUE(s.at("eval").at("exact_match").is_null()) << s;
    EXPECT_NE(read_text(run / "report.html").find("the run diverged"), std::string::npos);
  }
}

// The last update spoils the weights, and no checkpoint is asked for that would show it.
TEST_F(Run, ThatDivergesAtItsEndFails) {
  const fs::path run = copy_of_done("end");
  alter(run / "checkpoints" / "step_00000002", std::string(kWeight) + "/exp_avg", 3e38f);
  const Outcome o = train(0, "end", "--train.steps=3 --checkpoint.every=0", 1);
  EXPECT_EQ(o.count("error: the run diverged; not finite after step 3"), 1) << o.output;
  EXPECT_EQ(summary("end").at("status"), "diverged");
}

// So do steps that are skipped one after another, before any checkpoint is due.
TEST_F(Run, ThatSkipsTooManyStepsInARowEnds) {
  const Outcome o = train(2, "skips",
                          "--train.lr=1000 --train.weight_decay=1000 --train.steps=100 --train.max_skips=4 "
                          "--checkpoint.every=2",
                          1);
  EXPECT_EQ(o.errors(), 1) << o.output;
  EXPECT_EQ(o.count("(train.max_skips: 4 in a row)"), 1) << o.output;
  const auto lines = read_metrics(path("skips") + "/metrics.jsonl");
  ASSERT_GT(lines.size(), 4u);
  EXPECT_LT(lines.size(), 100u);
  std::vector<int64_t> skipped;
  for (const StepMetrics& m : lines)
    for (const auto& [name, value] : m.more)
      if (name == "skipped") skipped.push_back(m.step);
  ASSERT_GE(skipped.size(), 4u);
  EXPECT_EQ(skipped.back() - skipped[skipped.size() - 4], 3) << "in a row";
  EXPECT_EQ(lines.back().step, skipped.back());
  EXPECT_EQ(o.count(" of step " + std::to_string(skipped[skipped.size() - 4]) + " were not finite"), 1)
      << o.output;
  EXPECT_EQ(summary("skips").at("skipped_steps"), skipped.size());
  EXPECT_EQ(summary("skips").at("status"), "diverged");
  for (const int64_t step : checkpoints("skips"))
    EXPECT_LT(step, skipped.front())
        << "a checkpoint of the same weights as the one before the skipped steps";
}

TEST_F(Run, ThatHasDivergedIsNotResumed) {
  const fs::path run = copy_of_done("spoilt");
  alter(run / "checkpoints" / "step_00000002", std::string(kWeight) + "/value", NAN);
  const Outcome o = train(2, "spoilt", "--train.steps=3", 2);
  EXPECT_EQ(o.count("step_00000002] of a run that had diverged"), 1) << o.output;
  EXPECT_EQ(o.count("--resume=STEP takes an older checkpoint"), 1) << o.output;
  train(2, "spoilt", "--train.steps=3 --resume=1");
}

TEST_F(Run, OfNothingHasNoFigures) {
  write_tiny_dataset(path("empty.h5"), 16, 0);
  const Outcome o = train(
      0, "nothing", "--data.path=" + path("empty.h5") + " --train.steps=2 --eval.every=1 --eval.samples=0");
  EXPECT_EQ(o.count("held out after step 1: nothing to read"), 1) << o.output;
  EXPECT_EQ(o.count("held out, all 0 samples: nothing to read"), 1) << o.output;
  Json s = summary("nothing");
  EXPECT_EQ(s.at("status"), "finished");
  EXPECT_EQ(s.at("skipped_steps"), 0);
  EXPECT_TRUE(s.at("eval").at("loss").is_null()) << s;
  EXPECT_TRUE(s.at("eval").at("exact_match").is_null()) << s;
  EXPECT_EQ(read_text(path("nothing") + "/metrics.jsonl").find("held_out_loss"), std::string::npos);
  train(2, "no-steps", "--train.steps=0");
  s = summary("no-steps");
  EXPECT_TRUE(s.at("final_loss").is_null()) << s;
  EXPECT_TRUE(s.at("tokens_per_second").is_null()) << s;
  EXPECT_TRUE(s.at("idle").is_null()) << s;
  EXPECT_FALSE(s.contains("milliseconds_per_step")) << s;
  EXPECT_TRUE(s.at("eval").at("loss").is_number()) << s;
}

// Summary and report are of the whole run, whatever process did what of it.
TEST_F(Run, ThatGoesOnTellsOfAllOfIt) {
  const fs::path run = copy_of_done("all"), file = run / "metrics.jsonl";
  std::string text = read_text(file);
  text.insert(text.find('}'), ",\"skipped\":1");  // its first step
  write_text(file, text);
  train(2, "all", "--train.steps=3");
  const std::vector<StepMetrics> lines = read_metrics(file);
  ASSERT_EQ(lines.size(), 3u);
  double seconds = 0, tokens = 0;
  for (const StepMetrics& m : lines) seconds += m.step_seconds, tokens += static_cast<double>(m.tokens);
  const Json s = summary("all");
  EXPECT_EQ(s.at("steps"), 3);
  EXPECT_EQ(s.at("skipped_steps"), 1);
  EXPECT_NEAR(s.at("train_seconds"), seconds, 1e-9 * seconds);
  EXPECT_NEAR(s.at("tokens_per_second"), tokens / seconds, 1e-9 * tokens / seconds);
  EXPECT_EQ(s.at("final_loss"), lines.back().loss.value());
  EXPECT_NEAR(s.at("step_seconds").at("measured"), lines.back().step_seconds, 1e-9) << "of this process";
  const std::string page = read_text(run / "report.html");
  for (const int step : {1, 2, 3})
    EXPECT_NE(page.find("<title>step " + std::to_string(step) + ": "), std::string::npos) << step;
}

TEST_F(Run, ThatGoesOnNamesWhatHasChanged) {
  const fs::path run = copy_of_done("changes");
  const std::string before = read_text(run / "config.toml");
  const Outcome o = train(2, "changes", "--train.steps=3 --train.lr=5e-4 --train.global_batch=4");
  for (const char* line :
       {"changed: train.steps was 2, is 3\n", "changed: train.lr was 0.001, is 5e-04\n",
        "changed: train.global_batch was 8, is 4\n", "changed: checkpoint.every was 1, is 10\n"})
    EXPECT_EQ(o.count(line), 1) << line << o.output;
  EXPECT_EQ(o.count("changed: "), 5) << "the directory's name too: " << o.output;
  EXPECT_EQ(read_text(run / "config.1.toml"), before);
  EXPECT_NE(read_text(run / "config.toml").find("lr = 5e-04"), std::string::npos);

  const Outcome same =
      train(2, "changes", "--train.steps=4 --train.lr=5e-4 --train.global_batch=4 --resume=3");
  EXPECT_EQ(same.count("changed: "), 1) << same.output;
  const Outcome layout = train(0, "changes", "--train.steps=4 --train.lr=5e-4 --train.global_batch=4");
  EXPECT_EQ(layout.count("changed: "), 1) << layout.output;
  EXPECT_EQ(layout.count("changed: layout was vision=tp1,dp1@0"), 1) << layout.output;
  EXPECT_TRUE(fs::exists(run / "config.3.toml"));
  EXPECT_FALSE(fs::exists(run / "config.4.toml"));
}

TEST_F(Run, ThatGoesOnWithOtherDataIsAllowedByName) {
  copy_of_done("allowed");
  write_tiny_dataset(path("more.h5"), 48);
  const std::string changes = "--train.steps=3 --train.seed=2 --data.path=" + path("more.h5");
  const Outcome refused = train(0, "allowed", changes + " --resume.allow=train.seed", 2);
  EXPECT_EQ(refused.count("--resume.allow=data.path goes on"), 1) << refused.output;
  const Outcome o = train(0, "allowed", changes + " --resume.allow=train.seed,data.path");
  EXPECT_EQ(o.count("changed: train.seed was 1, is 2"), 1) << o.output;
  EXPECT_EQ(o.count("changed: data.path was a dataset of digest"), 1) << o.output;
  // The next checkpoint is of the run as it is now.
  EXPECT_EQ(train(0, "allowed", changes).count("changed: "), 0);
  // A copy of the data is the same data.
  copy_of_done("copied");
  fs::copy(path("data.h5"), path("copy.h5"));
  const Outcome copied = train(0, "copied", "--train.steps=3 --data.path=" + path("copy.h5"));
  EXPECT_EQ(copied.count("changed: data.path was"), 1) << copied.output;
}

// Its metrics are all that it left.
TEST_F(Run, ThatHadNoCheckpointIsSetAside) {
  train(0, "bare", "--train.steps=3 --checkpoint.every=0");
  const Outcome o = train(0, "bare", "--train.steps=1 --checkpoint.every=0");
  EXPECT_EQ(o.count("beginning anew; what the earlier run wrote is in " + path("bare/earlier.1")), 1)
      << o.output;
  EXPECT_EQ(read_metrics(path("bare/earlier.1/metrics.jsonl")).size(), 3u);
  EXPECT_TRUE(fs::exists(path("bare/earlier.1/config.toml")));
  EXPECT_TRUE(fs::exists(path("bare/earlier.1/summary.json")));
  EXPECT_EQ(read_metrics(path("bare/metrics.jsonl")).size(), 1u);
  EXPECT_FALSE(fs::exists(path("bare/config.1.toml")));
}

TEST_F(Run, IsEvaluatedAsItWasTrainedOnAnyRanks) {
  train(2, "own",
        "--train.steps=1 --checkpoint.every=1 --layout.vision=tp2,dp1@0 --layout.language=tp2,dp1@0 "
        "--module.language.ffn=32 --resume=never --device=cpu");
  for (const std::string& named : {std::string(), " --config " + path("own/config.toml")}) {
    std::vector<std::string> figures;
    for (const int ranks : {0, 3}) {
      const Outcome o = run_mimo(ranks, "eval --run.dir=" + path("own") + named);
      EXPECT_EQ(o.status, 0) << o.output;
      EXPECT_EQ(o.count(path("own") + " after step 1\n"), 1) << o.output;
      figures.push_back(o.output.substr(o.output.find("exact match")));
    }
    EXPECT_EQ(figures[0].substr(0, 20), figures[1].substr(0, 20));
  }
  const Outcome laid =
      run_mimo(2, "eval --run.dir=" + path("own") + " --layout.vision=dp2@0 --layout.language=dp2@0");
  EXPECT_EQ(laid.status, 0) << laid.output;
  const Outcome read = run_mimo(0, "generate --prompt 1+2= --run.dir=" + path("own"));
  EXPECT_EQ(read.status, 0) << read.output;
  const Outcome none = run_mimo(0, "eval --run.dir=" + path("none"));
  EXPECT_EQ(none.status, 2);
  EXPECT_EQ(none.count("no checkpoint: expected one in " + path("none")), 1) << none.output;
}

}  // namespace
}  // namespace mimo
