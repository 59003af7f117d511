// A job that was killed goes on as if nothing had happened: bit for bit on the same layout, to rounding on
// another.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>

#include "io/checkpoint.h"
#include "io/file.h"
#include "io/hdf5.h"
#include "io/metrics.h"
#include "tests/tools/program.h"

namespace mimo {
namespace {

namespace fs = std::filesystem;

struct Layout {
  const char* name;
  int ranks;
  const char* arguments;
};

const Layout kLayouts[] = {
    {"one", 0, ""},
    {"disjoint", 2, ""},
    {"dp2", 2, "--layout.vision=dp2@0 --layout.language=dp2@0"},
    {"tp2", 2, "--layout.vision=tp2,dp1@0 --layout.language=tp2,dp1@0"},
    {"pp2", 3, "--layout.vision=dp1@0 --layout.language=pp2,dp1@1"},
    {"overlap", 3, "--layout.vision=dp2@0 --layout.language=tp2,dp1@1"},
};

// Dataset and configuration, and the uninterrupted course of one process with a checkpoint after step 10.
class Resume : public testing::Test {
 protected:
  Resume() {
    if (files) return;
    files = std::make_unique<TempDir>();
    write_tiny_dataset(path("data.h5"));
    write_tiny_config(path("tiny.toml"), path("data.h5"));
    run(kLayouts[0], "whole-one");
  }

  static std::string path(const std::string& name) { return (*files / name).string(); }
  static std::string command(const Layout& layout, const std::string& name, const std::string& more = "") {
    return mimo(layout.ranks, "--config " + path("tiny.toml") + " --run.dir=" + path(name) + " " +
                                  layout.arguments + " " + more);
  }
  static Outcome run(const Layout& layout, const std::string& name, const std::string& more = "") {
    const Outcome o = Program(command(layout, name, more)).wait();
    EXPECT_EQ(o.status, 0) << o.output;
    return o;
  }
  static fs::path checkpoint(const std::string& name, int64_t step) {
    return list_checkpoints(path(name) + "/checkpoints").at(step);
  }
  static std::vector<StepMetrics> metrics(const std::string& name) {
    return read_metrics(path(name) + "/metrics.jsonl");
  }
  // Every tensor of a checkpoint, whole, by name.
  static std::map<std::string, std::vector<float>> tensors(const fs::path& checkpoint) {
    std::map<std::string, std::vector<float>> all;
    const h5::File index = h5::File::open(checkpoint / "index.h5");
    const auto manifest = nlohmann::json::parse(read_text(checkpoint / "manifest.json"));
    for (const auto& [name, t] : manifest.at("tensors").items()) {
      if (t.at("dtype") == "bf16")
        for (const bf16 x : index.dataset(name).read<bf16>()) all[name].push_back(x);
      else
        all[name] = index.dataset(name).read<float>();
    }
    EXPECT_FALSE(all.empty());
    return all;
  }
  static void expect_equal_weights(const fs::path& a, const fs::path& b) {
    const auto first = tensors(a), second = tensors(b);
    ASSERT_EQ(first.size(), second.size());
    for (const auto& [name, values] : first) {
      const auto& other = second.at(name);
      ASSERT_EQ(values.size(), other.size()) << name;
      const auto differ = std::mismatch(values.begin(), values.end(), other.begin()).first;
      EXPECT_EQ(differ, values.end()) << name << " at " << differ - values.begin();
    }
  }

  static std::unique_ptr<TempDir> files;
};

std::unique_ptr<TempDir> Resume::files;

class SameLayout : public Resume, public testing::WithParamInterface<Layout> {};

TEST_P(SameLayout, ContinuesBitForBit) {
  const Layout& layout = GetParam();
  const std::string whole = std::string("whole-") + layout.name, cut = std::string("cut-") + layout.name;
  if (layout.ranks > 0) run(layout, whole);
  {
    // Killed as soon as the checkpoint of step 10 is there, wherever it is then.
    Program program(command(layout, cut));
    ASSERT_TRUE(until([&] {
      return list_checkpoints(path(cut) + "/checkpoints").count(10) > 0 || !program.running();
    })) << program.output();
    for (pid_t pid : program.processes()) kill(pid, SIGKILL);
    program.wait();
  }
  const Outcome o = run(layout, cut, "--resume=10");
  EXPECT_EQ(o.count("resuming after step 10 "), 1) << o.output;

  const auto a = metrics(whole), b = metrics(cut);
  ASSERT_EQ(a.size(), 20u);
  ASSERT_EQ(b.size(), 20u);
  for (size_t i = 0; i < a.size(); ++i) {
    SCOPED_TRACE("step " + std::to_string(i + 1));
    EXPECT_EQ(a[i].step, b[i].step);
    EXPECT_EQ(a[i].loss, b[i].loss);
    EXPECT_EQ(a[i].tokens, b[i].tokens);
    EXPECT_EQ(a[i].grad_norm, b[i].grad_norm);
    EXPECT_EQ(a[i].lr, b[i].lr);
  }
  EXPECT_LT(a.back().loss.value(), a.front().loss.value());
  expect_equal_weights(checkpoint(whole, 20), checkpoint(cut, 20));
}

INSTANTIATE_TEST_SUITE_P(, SameLayout, testing::ValuesIn(kLayouts),
                         [](const auto& i) { return std::string(i.param.name); });

class OtherLayout : public Resume, public testing::WithParamInterface<Layout> {};

TEST_P(OtherLayout, ContinuesToRounding) {
  const Layout& layout = GetParam();
  const std::string name = std::string("moved-") + layout.name;
  fs::create_directories(path(name));
  fs::copy(path("whole-one"), path(name), fs::copy_options::recursive);
  run(layout, name, "--resume=10");
  const auto a = metrics("whole-one"), b = metrics(name);
  ASSERT_EQ(b.size(), 20u);
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(a[i], b[i]) << "kept line " << i + 1;
  for (size_t i = 10; i < 20; ++i) {
    // The bounds of the tests of layouts: sums of up to 10^3 fp32 terms in another order, over ten steps.
    EXPECT_NEAR(a[i].loss.value(), b[i].loss.value(), 1e-5 * a[i].loss.value()) << "step " << i + 1;
    EXPECT_NEAR(a[i].grad_norm, b[i].grad_norm, 1e-4 * a[i].grad_norm) << "step " << i + 1;
    EXPECT_EQ(a[i].tokens, b[i].tokens);
  }
}

INSTANTIATE_TEST_SUITE_P(, OtherLayout, testing::ValuesIn(kLayouts + 1, std::end(kLayouts)),
                         [](const auto& i) { return std::string(i.param.name); });

TEST_F(Resume, TakesThePositionInTheDataFromTheCheckpoint) {
  // Steps of 8 samples to step 10, of 4 to step 14, of 8 again to 15: what is read follows without a gap.
  fs::copy(path("whole-one"), path("batches"), fs::copy_options::recursive);
  run(kLayouts[0], "batches", "--resume=10 --train.steps=14 --train.global_batch=4");
  run(kLayouts[0], "batches", "--train.steps=15");
  const auto position = [&](int64_t step) {
    return std::get<int64_t>(read_training_state(checkpoint("batches", step)).scalars.at("position"));
  };
  EXPECT_EQ(position(10), 80);
  EXPECT_EQ(position(14), 96);
  EXPECT_EQ(position(15), 104);
  const auto whole = metrics("whole-one"), parts = metrics("batches");
  EXPECT_EQ(parts[10].tokens + parts[11].tokens, whole[10].tokens);
  EXPECT_EQ(parts[12].tokens + parts[13].tokens, whole[11].tokens);
  EXPECT_EQ(parts[14].tokens, whole[12].tokens);
}

// Training in stages. What is frozen keeps its weights and leaves its moments behind; what is trained anew
// goes on from the weights that were loaded, also in the master copy, with moments of zero.
TEST_F(Resume, WhatIsTrainedMayChangeWhereThatIsAllowed) {
  for (const std::string dtype : {"f32", "bf16"}) {
    SCOPED_TRACE(dtype);
    const std::string name = "stages-" + dtype, allow = " --resume.allow=train.freeze --train.dtype=" + dtype;
    run(kLayouts[1], name, "--train.steps=10 --train.dtype=" + dtype);
    run(kLayouts[2], name, "--train.steps=15 --train.freeze=vision.*" + allow);
    run(kLayouts[1], name, "--train.steps=16 --train.freeze=[] --train.lr=0 --train.min_lr=0" + allow);
    const auto first = tensors(checkpoint(name, 10)), frozen = tensors(checkpoint(name, 15)),
               last = tensors(checkpoint(name, 16));
    EXPECT_EQ(last.size(), first.size());
    int moments = 0;
    for (const auto& [tensor, values] : last) {
      SCOPED_TRACE(tensor);
      if (!tensor.starts_with("vision.")) {
        EXPECT_TRUE(frozen.contains(tensor));
      } else if (tensor.ends_with("/value")) {
        EXPECT_EQ(frozen.at(tensor), first.at(tensor));
        EXPECT_EQ(values, frozen.at(tensor)) << "at a learning rate of zero";
      } else {
        EXPECT_FALSE(frozen.contains(tensor));
      }
      // After one update from zero v = (1 - beta2) (m / (1 - beta1))^2.
      if (!tensor.starts_with("vision.") || !tensor.ends_with("/exp_avg")) continue;
      const auto& squares = last.at(tensor + "_sq");
      for (size_t i = 0; i < values.size(); ++i, ++moments) {
        const double g = values[i] / (1 - 0.9);
        EXPECT_NEAR(squares[i], (1 - 0.95) * g * g, 1e-4 * squares[i] + 1e-30);
      }
    }
    EXPECT_GT(moments, 0);
    EXPECT_NE(frozen.at("language.embeddings.weight/value"), first.at("language.embeddings.weight/value"));
  }
}

}  // namespace
}  // namespace mimo
