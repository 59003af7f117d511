// Where training begins: how every parameter of every layer is drawn.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tests/nn/tiny.h"

namespace mimo {
namespace {

using Table = std::map<std::string, Initializer>;

Initializer of_inputs(int64_t inputs, double shrunk = 1) {
  return normal(1 / std::sqrt(static_cast<double>(inputs)) / shrunk);
}
Initializer uniform(double bound) { return {Distribution::uniform, -bound, bound}; }

void expect_drawn(const std::vector<Parameter*>& parameters, const Table& expected) {
  std::map<std::string, const Parameter*> found;
  for (const Parameter* p : parameters) found[p->name] = p;
  EXPECT_EQ(found.size(), expected.size());
  for (const auto& [name, init] : expected) {
    ASSERT_TRUE(found.contains(name)) << name;
    const Initializer& got = found[name]->init;
    EXPECT_EQ(got.distribution, init.distribution) << name;
    EXPECT_DOUBLE_EQ(got.a, init.a) << name;
    EXPECT_DOUBLE_EQ(got.b, init.b) << name;
  }
}

// Linear layers by the root of their inputs; those that add to the residual stream of L layers (two for each
// of an encoder's blocks) smaller by the root of 2 L.
TEST(InitialValues, OfALanguageModel) {
  const double residual = std::sqrt(2.0 * 4);
  const Initializer one = constant(1), step{Distribution::inverse_softplus, 0.001, 0.1};
  const Table expected = {
      {"language.embeddings.weight", normal(0.02)},
      {"language.lm_head.weight", of_inputs(24)},
      {"language.norm_f.weight", one},
      {"language.layers.0.norm.weight", one},
      {"language.layers.0.mixer.in_proj.weight", of_inputs(24)},
      {"language.layers.0.mixer.conv1d.weight", uniform(0.5)},  // of four taps
      {"language.layers.0.mixer.conv1d.bias", uniform(0.5)},
      {"language.layers.0.mixer.dt_bias", step},
      {"language.layers.0.mixer.A_log", {Distribution::log_uniform, 1, 16}},
      {"language.layers.0.mixer.D", one},
      {"language.layers.0.mixer.norm.weight", one},
      {"language.layers.0.mixer.out_proj.weight", of_inputs(32, residual)},
      {"language.layers.1.norm.weight", one},
      {"language.layers.1.mixer.in_proj.weight", of_inputs(24)},
      {"language.layers.1.mixer.conv1d.weight", uniform(0.5)},
      {"language.layers.1.mixer.conv1d.bias", uniform(0.5)},
      {"language.layers.1.mixer.x_proj.weight", of_inputs(32)},
      {"language.layers.1.mixer.dt_proj.weight", uniform(1 / std::sqrt(3.0))},  // of rank three
      {"language.layers.1.mixer.dt_proj.bias", step},
      {"language.layers.1.mixer.A_log", {Distribution::log_index, 4, 0}},  // ln 1, 2, 3, 4
      {"language.layers.1.mixer.D", one},
      {"language.layers.1.mixer.out_proj.weight", of_inputs(32, residual)},
      {"language.layers.2.norm.weight", one},
      {"language.layers.2.mixer.qkv_proj.weight", of_inputs(24)},
      {"language.layers.2.mixer.o_proj.weight", of_inputs(32, residual)},
      {"language.layers.3.norm.weight", one},
      {"language.layers.3.mixer.up_proj.weight", of_inputs(24)},
      {"language.layers.3.mixer.down_proj.weight", of_inputs(40, residual)}};
  const auto stage = [](const std::string& std) {
    return make_stage(tiny::model("MS*-", DType::f32, {"--module.language.init_std=" + std}), 1, {}, 0, {},
                      nullptr);
  };
  const auto drawn = stage("0");
  expect_drawn(drawn->parameters(), expected);
  // A deviation that is given is that of all of them.
  const auto given = stage("0.3");
  for (const auto& [end, std] : std::map<std::string, double>{{"up_proj.weight", 0.3},
                                                              {"lm_head.weight", 0.3},
                                                              {"down_proj.weight", 0.3 / residual},
                                                              {"o_proj.weight", 0.3 / residual}})
    for (const Parameter* p : given->parameters()) {
      if (!p->name.ends_with(end)) continue;
      EXPECT_DOUBLE_EQ(p->init.b, std) << p->name;
    }
}

TEST(InitialValues, OfAnEncoder) {
  const double residual = std::sqrt(2.0 * 2);
  Table expected = {{"vision.patch_generator.embedder.weight", of_inputs(4)},
                    {"vision.patch_generator.pos_embed", normal(0.02)},
                    {"vision.patch_generator.cls_token.token", normal(0.02)},
                    {"vision.projector.norm.weight", constant(1)},
                    {"vision.projector.linear1.weight", of_inputs(128)},
                    {"vision.projector.linear2.weight", of_inputs(40)}};
  for (const std::string block : {"vision.blocks.0.", "vision.blocks.1."}) {
    for (const char* norm : {"norm1.", "norm2."})
      expected[block + norm + "weight"] = constant(1), expected[block + norm + "bias"] = constant(0);
    for (const char* layer : {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"})
      expected[block + layer + ".bias"] = constant(0);
    expected[block + "attn.qkv.weight"] = of_inputs(32);
    expected[block + "attn.proj.weight"] = of_inputs(32, residual);
    expected[block + "mlp.fc1.weight"] = of_inputs(32);
    expected[block + "mlp.fc2.weight"] = of_inputs(48, residual);
  }
  const auto stage =
      make_stage(tiny::model("-", DType::f32, {"--module.vision.init_std=0"}), 0, {}, 0, {}, nullptr);
  expect_drawn(stage->parameters(), expected);
}

}  // namespace
}  // namespace mimo
