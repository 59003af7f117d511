// The rules of training, seen from outside: five steps against a trainer written apart, which weights decay,
// what the schedule's keys mean, what a step leaves that is skipped.
#include "tools/run/trainer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/write_dataset.h"
#include "io/file.h"
#include "tests/io/temp_dir.h"
#include "tests/tools/plain_trainer.h"

namespace mimo {
namespace {

constexpr int32_t kVocab = 11;

// Pixels are 0 or 255, so that (x / 255 - 1/4) / (1/2) is exact.
Sample::Item image(int position, int height, int width, unsigned seed) {
  Sample::Item item{position, 0, {1, 1, height, width}, {}};
  for (int i = 0; i < height * width; ++i) item.bytes.push_back((seed += seed * 5 + 3) >> 7 & 1 ? 255 : 0);
  return item;
}

// Text alone, with one image, with two, and one in which nothing counts. 10 stands where an image is.
std::vector<Sample> samples() {
  return {{{1, 10, 2, 3, 4, 0}, {0, 0, 0, 1, 1, 1}, {image(1, 4, 8, 1)}, 0, 2},
          {{1, 5, 6, 5, 7, 8, 0}, {0, 0, 0, 0, 1, 0, 1}, {}, 0, 2},
          {{10, 9, 10, 2, 2}, {0, 1, 0, 1, 1}, {image(0, 8, 4, 2), image(2, 8, 8, 3)}, 0, 2},
          {{1, 10, 3}, {0, 0, 0}, {image(1, 4, 8, 4)}, 0, 0},
          {{3, 3, 10, 3}, {0, 1, 0, 1}, {image(2, 8, 4, 5)}, 0, 2}};
}

plain::Sample plain_sample(const Sample& s) {
  plain::Sample p;
  p.tokens.assign(s.tokens.begin(), s.tokens.end());
  p.counted.assign(s.counted.begin(), s.counted.end());
  for (const Sample::Item& item : s.items) {
    plain::Image& to = p.images[static_cast<size_t>(item.position)];
    to = {static_cast<size_t>(item.shape.height), static_cast<size_t>(item.shape.width), {}};
    for (const uint8_t x : item.bytes) to.pixels.push_back((x / 255.0 - 0.25) / 0.5);
  }
  return p;
}

class TrainingRules : public testing::Test {
 protected:
  // A run of all samples in every step, three waves of them, on one process.
  Job job(const std::vector<std::string>& overrides, DType dtype = DType::f32, int64_t count = 5) {
    const std::vector<Sample> all = samples();
    const auto make = [&](int64_t i) { return all.at(static_cast<size_t>(i)); };
    write_dataset(
        files_ / "data.h5",
        {.vocab = kVocab, .modalities = {{.name = "image", .mean = {0.25}, .std = {0.5}}}, .kinds = {"all"}},
        {{"train", count, count, make}, {"heldout", 0, 0, make}});
    write_text(files_ / "tiny.toml", "[data]\npath = \"" + (files_ / "data.h5").string() + R"("
workers = 0
[train]
steps = 5
warmup = 2
lr = 1e-2
min_lr = 2e-3
beta1 = 0.8
beta2 = 0.9
eps = 1e-3
weight_decay = 0.5
clip = 0.1
global_batch = )" + std::to_string(count) +
                                         R"(
micro_batch = 2
[module.vision]
kind = "vit"
hidden = 16
layers = 1
heads = 2
ffn = 12
patch = 2
class_tokens = 1
grid = 4
activation = "silu"
projector = "mlp"
projector_ffn = 6
init_std = 0.3
[module.language]
kind = "hybrid"
pattern = "*-MS"
hidden = 8
heads = 2
kv_heads = 1
head_dim = 8
ffn = 10
ssm_heads = 4
ssm_head_dim = 3
ssm_groups = 2
ssm_state = 5
ssm_chunk = 3
conv_width = 3
scan_inner = 6
scan_state = 4
scan_dt_rank = 2
init_std = 0.3
embedding_std = 0.5
)");
    Job made = make_job(files_ / "tiny.toml", overrides, 1);
    made.model.dtype = dtype;
    return made;
  }

  TempDir files_;
  std::unique_ptr<World> world_ = self_world();
};

std::vector<double> numbers(const Tensor& t) {
  std::vector<double> out;
  dispatch(t.dtype(), [&]<class T>() {
    for (const T x : t.to_vector<T>()) out.push_back(static_cast<double>(static_cast<acc_t<T>>(x)));
  });
  return out;
}

std::map<std::string, std::vector<double>> weights_of(const Trainer& trainer) {
  std::map<std::string, std::vector<double>> out;
  for (const Parameter* p : trainer.parameters()) out[p->name] = numbers(p->value);
  return out;
}

// Decay is for matrices that rows are multiplied by, convolutions and embeddings: not for these.
const std::set<std::string> kNoDecay = {"language.layers.0.norm.weight",
                                        "language.layers.1.norm.weight",
                                        "language.layers.2.norm.weight",
                                        "language.layers.2.mixer.conv1d.bias",
                                        "language.layers.2.mixer.dt_bias",
                                        "language.layers.2.mixer.A_log",
                                        "language.layers.2.mixer.D",
                                        "language.layers.2.mixer.norm.weight",
                                        "language.layers.3.norm.weight",
                                        "language.layers.3.mixer.conv1d.bias",
                                        "language.layers.3.mixer.dt_proj.bias",
                                        "language.layers.3.mixer.A_log",
                                        "language.layers.3.mixer.D",
                                        "language.norm_f.weight",
                                        "vision.blocks.0.attn.proj.bias",
                                        "vision.blocks.0.attn.qkv.bias",
                                        "vision.blocks.0.mlp.fc1.bias",
                                        "vision.blocks.0.mlp.fc2.bias",
                                        "vision.blocks.0.norm1.bias",
                                        "vision.blocks.0.norm1.weight",
                                        "vision.blocks.0.norm2.bias",
                                        "vision.blocks.0.norm2.weight",
                                        "vision.patch_generator.cls_token.token",
                                        "vision.patch_generator.pos_embed",
                                        "vision.projector.norm.weight"};

struct Case {
  std::string name;
  DType dtype;
  double clip;  // 0: off
  bool frozen;  // the encoder
};

class PlainTraining : public TrainingRules, public testing::WithParamInterface<Case> {};

TEST_P(PlainTraining, GivesTheSameFiveSteps) {
  const Case c = GetParam();
  const Job j = job({"--train.clip=" + std::to_string(c.clip),
                     std::string("--train.freeze=") + (c.frozen ? "vision.*" : "[]")},
                    c.dtype);
  ASSERT_EQ(j.waves, 3);
  Trainer trainer(j, *world_);
  plain::Trainer expected({.pattern = "*-MS",
                           .patch = 2,
                           .grid = 4,
                           .vision_heads = 2,
                           .vision_dim = 8,
                           .heads = 2,
                           .kv_heads = 1,
                           .dim = 8,
                           .groups = 2,
                           .lr = 1e-2,
                           .min_lr = 2e-3,
                           .beta1 = 0.8,
                           .beta2 = 0.9,
                           .adam_eps = 1e-3,
                           .weight_decay = 0.5,
                           .clip = c.clip,
                           .warmup = 2,
                           .steps = 5});
  for (const auto& [name, values] : weights_of(trainer))
    expected.weights[name] = {
        values, {}, {}, !kNoDecay.contains(name), !(c.frozen && name.starts_with("vision."))};
  std::vector<plain::Sample> batch;
  for (const Sample& s : samples()) batch.push_back(plain_sample(s));

  // The longest way through the model is some twenty sums of up to sixty terms each, whose roundings add as
  // errors do that know nothing of each other: by the root of their number, 35. Three times that.
  const double bound = 100 * (c.dtype == DType::f64 ? 0x1p-53 : 0x1p-24);
  for (int step = 0; step < 5; ++step) {
    const StepResult got = trainer.step();
    const plain::Trainer::Step want = expected.step(batch);
    EXPECT_NEAR(got.loss.value(), want.loss, bound * want.loss) << "step " << step;
    EXPECT_NEAR(got.grad_norm, want.grad_norm, bound * want.grad_norm) << "step " << step;
    EXPECT_NEAR(got.lr, want.lr, 1e-17) << "step " << step;
    EXPECT_GT(want.grad_norm, 2 * c.clip) << "else nothing is clipped";
  }
  for (const auto& [name, got] : weights_of(trainer)) {
    const plain::Weight& want = expected.weights.at(name);
    ASSERT_EQ(got.size(), want.value.size()) << name;
    double worst = 0;
    for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::abs(got[i] - want.value[i]));
    EXPECT_LE(worst, bound) << name;
  }
}
INSTANTIATE_TEST_SUITE_P(In, PlainTraining,
                         testing::Values(Case{"Double", DType::f64, 0.1, false},
                                         Case{"Single", DType::f32, 0.1, false},
                                         Case{"DoubleFrozenUnclipped", DType::f64, 0, true}),
                         [](const auto& c) { return c.param.name; });

TEST_F(TrainingRules, DecayIsForMatrices) {
  const Trainer trainer(job({"--module.language.activation=swiglu"}), *world_);
  std::set<std::string> without, with;
  for (const Parameter* p : trainer.parameters()) (p->decay ? with : without).insert(p->name);
  EXPECT_EQ(without, kNoDecay);
  // Embeddings, head, patches, projector; of an encoder's block 4, of attention 2, of the MLP 2, of Mamba-2
  // 3, of Mamba-1 5.
  EXPECT_EQ(with.size(), 5u + 4 + 2 + 2 + 3 + 5);
}

TEST_F(TrainingRules, KeysOfTheSchedule) {
  const std::vector<double> rise = {0.005, 0.01, 0.01};
  for (const auto& [kind, fall] : std::map<std::string, std::vector<double>>{
           {"constant", {0.01, 0.01, 0.01}},
           {"linear", {0.002 + 0.008 * 2 / 3, 0.002 + 0.008 / 3, 0.002}},
           {"cosine", {0.008, 0.004, 0.002}}}) {  // at 60, 120 and 180 degrees
    Trainer trainer(job({"--train.steps=6", "--train.schedule=" + kind}), *world_);
    for (const std::vector<double>& part : {rise, fall})
      for (const double lr : part) EXPECT_NEAR(trainer.step().lr, lr, 1e-17) << kind;
  }
}

// Every step takes the one sample that there is at one learning rate, so that a run that skips a step and one
// that never had it train alike; what was skipped must be in no weight, no moment and no count of updates.
TEST_F(TrainingRules, ASkippedStepLeavesNothing) {
  const Job j = job({"--train.schedule=constant", "--train.warmup=0", "--train.steps=9"}, DType::f32, 1);
  Trainer skips(j, *world_), other(j, *world_);
  for (int i = 0; i < 2; ++i) skips.step(), other.step();
  const auto before = weights_of(skips);
  EXPECT_EQ(before, weights_of(other));
  Parameter& last = *skips.parameters().back();
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    last.grad.data<float>()[1] = bad;  // gradients add up on what is there
    const StepResult r = skips.step();
    EXPECT_EQ(r.not_finite, "1 elements of gradients");
    EXPECT_TRUE(std::isnan(r.grad_norm));
    EXPECT_TRUE(r.loss.has_value());
    EXPECT_EQ(weights_of(skips), before);
  }
  EXPECT_EQ(skips.steps_done(), 5);
  for (int i = 0; i < 3; ++i) {
    const StepResult a = skips.step(), b = other.step();
    EXPECT_EQ(a.not_finite, "");
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.grad_norm, b.grad_norm);
    EXPECT_EQ(weights_of(skips), weights_of(other)) << i << " steps later";
  }
  EXPECT_NE(weights_of(skips), before);
}

}  // namespace
}  // namespace mimo
