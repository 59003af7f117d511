// The model as a whole: what layouts it refuses, what crosses stages, what everything costs.
#include "nn/mimo.h"

#include <gtest/gtest.h>

#include "nn/costs.h"
#include "nn/split_layers.h"
#include "tensor/error.h"
#include "tests/nn/tiny.h"

namespace mimo {
namespace {

ModelSpec tiny_model(const std::string& pattern) {
  ModelSpec m;
  m.modules.resize(2);
  m.modules[0].kind = ModuleSpec::Kind::vit;
  m.modules[0].name = "vision";
  m.modules[0].vit = tiny::vit();
  m.modules[1].name = "language";
  m.modules[1].hybrid = tiny::hybrid(pattern);
  return m;
}

Layout layout(const Grid& vision, const Grid& language) {
  return {{{"vision", vision}, {"language", language}}, 64};
}

// Two samples: text alone; text with images of 4 x 6 and 2 x 2 patches, four of which are a row.
const std::vector<SampleSizes> kSamples = {{7, 3, {{}}}, {15, 2, {{{4, 6, 6}, {2, 2, 1}}}}};

TEST(CheckModel, AcceptsWhatDivides) {
  EXPECT_NO_THROW(check_model(tiny_model("MS*-"), layout({.tp = 4, .pp = 2}, {.tp = 2, .pp = 4})));
  // Sizes of layers that are not there do not matter.
  ModelSpec m = tiny_model("--");
  m.modules[1].hybrid.kv_heads = m.modules[1].hybrid.ssm_groups = 3;
  m.modules[0].vit.projector = "affine", m.modules[0].vit.projector_ffn = 7;
  EXPECT_NO_THROW(check_model(m, layout({.tp = 2}, {.tp = 2})));
}

TEST(CheckModel, NamesWhatDoesNotFit) {
  struct Row {
    std::string pattern;
    Grid vision, language;
    std::vector<std::string> told;
  };
  const std::vector<Row> rows = {
      {"M", {.tp = 3}, {}, {"module.vision.heads", "multiple of tp 3", "found 4", "layout.vision"}},
      {"M", {.tp = 32}, {}, {"module.vision.heads", "found 4"}},
      {"*", {}, {.tp = 4}, {"module.language.kv_heads", "multiple of tp 4", "found 2"}},
      {"*", {}, {.tp = 8}, {"module.language.heads", "found 4"}},
      {"-", {}, {.tp = 16}, {"module.language.ffn", "found 40"}},
      {"M", {}, {.tp = 8}, {"module.language.ssm_heads", "found 4"}},
      {"M", {}, {.tp = 4}, {"module.language.ssm_groups", "found 2"}},
      {"S", {}, {.tp = 5}, {"module.language.scan_inner", "found 32"}},
      {"M", {.pp = 3}, {}, {"layout.vision", "at most 2", "found pp3"}},
      {"M-", {}, {.pp = 3}, {"layout.language", "at most 2", "found pp3"}},
      {"M||-*", {}, {.pp = 3}, {"module.language.pattern", "stage 1 has no layer", "M||-*"}},
      {"|M-", {}, {.pp = 2}, {"module.language.pattern", "stage 0 has no layer"}},
      {"M|-*M", {}, {.pp = 3}, {"module.language.pattern", "no | or 2 of them for pp3", "found 1"}},
  };
  for (const Row& r : rows) {
    std::string message = "no error";
    try {
      check_model(tiny_model(r.pattern), layout(r.vision, r.language));
    } catch (const ConfigError& e) {
      message = e.what();
    }
    for (const std::string& part : r.told)
      EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' in: " << message;
  }
  ModelSpec m = tiny_model("M");
  for (auto [key, value] :
       {std::pair{"ffn", &m.modules[0].vit.ffn}, {"projector_ffn", &m.modules[0].vit.projector_ffn}}) {
    const int64_t before = *value;
    *value = 7;
    try {
      check_model(m, layout({.tp = 2}, {}));
      ADD_FAILURE() << key;
    } catch (const ConfigError& e) {
      EXPECT_NE(std::string(e.what()).find(std::string("module.vision.") + key), std::string::npos)
          << e.what();
    }
    *value = before;
  }
}

TEST(Stages, AreCutAtBarsElseByCost) {
  const auto cut = [](const std::string& pattern, int stages) {
    std::vector<std::pair<int, int>> layers;
    for (int s = 0; s < stages; ++s)
      layers.push_back(stage_layers(tiny_model(pattern).modules[1], s, stages));
    return layers;
  };
  using Layers = std::vector<std::pair<int, int>>;
  EXPECT_EQ(cut("MM|-*|M", 3), (Layers{{0, 2}, {2, 4}, {4, 5}}));
  EXPECT_EQ(cut("MM|-*|M", 1), (Layers{{0, 5}}));
  EXPECT_EQ(cut("----", 2), (Layers{{0, 2}, {2, 4}}));
  ModelSpec m = tiny_model("----");
  m.modules[1].hybrid.vocab = 100000;  // the head outweighs all layers
  EXPECT_EQ(stage_layers(m.modules[1], 0, 2), (std::pair{0, 3}));
  EXPECT_EQ(stage_layers(m.modules[0], 1, 2), (std::pair{1, 2}));
}

TEST(Stages, DearestStageIsAsCheapAsPossible) {
  EXPECT_EQ(split_layers({1, 1, 1, 9}, 2), (std::vector<int>{0, 3, 4}));
  EXPECT_EQ(split_layers({5, 1, 1, 1, 2}, 3).size(), 4u);
  EXPECT_EQ(split_layers({3}, 1), (std::vector<int>{0, 1}));
  EXPECT_THROW(split_layers({1, 1}, 3), std::invalid_argument);
  // Against all cuts of seven layers into three.
  const std::vector<double> cost{3, 1, 4, 1, 5, 9, 2};
  const auto dearest = [&](const std::vector<int>& begin) {
    double most = 0;
    for (size_t s = 0; s + 1 < begin.size(); ++s) {
      double sum = 0;
      for (int i = begin[s]; i < begin[s + 1]; ++i) sum += cost[i];
      most = std::max(most, sum);
    }
    return most;
  };
  double best = 1e9;
  for (int a = 1; a < 6; ++a)
    for (int b = a + 1; b < 7; ++b) best = std::min(best, dearest({0, a, b, 7}));
  EXPECT_EQ(dearest(split_layers(cost, 3)), best);
}

TEST(Edges, RowsAndWidths) {
  const ModelSpec m = tiny_model("M-");
  const StageEdge across{.src_module = 0, .src_stage = 1, .dst_module = 1, .dst_stage = 0},
      vision{.src_module = 0, .src_stage = 0, .dst_module = 0, .dst_stage = 1},
      language{.src_module = 1, .src_stage = 0, .dst_module = 1, .dst_stage = 1};
  EXPECT_EQ(edge_rows(m, across, kSamples[0]), 0);
  EXPECT_EQ(edge_rows(m, across, kSamples[1]), 6 + 1);
  EXPECT_EQ(edge_rows(m, vision, kSamples[0]), 0);
  EXPECT_EQ(edge_rows(m, vision, kSamples[1]), 24 + 4 + 2 * 3);  // patches, three class tokens an image
  EXPECT_EQ(edge_rows(m, language, kSamples[1]), 15);
  EXPECT_EQ(edge_width(m, across), 24);
  EXPECT_EQ(edge_width(m, vision), 32);
  EXPECT_EQ(edge_width(m, language), 24);
}

// The parameters of our modules, counted by hand elsewhere: published sizes of published models.
int64_t count(const ModelSpec& m, int module, const Grid& g = {}, const Coord& c = {}) {
  return parameter_count(m, module, g, c);
}

TEST(ParameterCount, IsThatOfPublishedModels) {
  ModelSpec m = tiny_model("M");
  // A block of width 64 and ffn 256 with biases and two layer norms has 49,984 parameters; a vision
  // transformer of two of them on 14 x 14 patches of three channels with 146 x 146 positions has 1,501,824.
  VitOptions& v = m.modules[0].vit;
  v = {};
  v.hidden = 64, v.ffn = 256, v.layers = 2, v.heads = 4, v.channels = 3, v.patch = 14, v.grid = 146;
  v.projector = "affine", v.out = 0;
  EXPECT_EQ(count(m, 0), 1501824);
  v.layers = 3;
  EXPECT_EQ(count(m, 0), 1501824 + 49984);
  // C-RADIOv2-H: 651.6 million.
  v.hidden = 1280, v.ffn = 5120, v.layers = 32, v.heads = 16, v.patch = 16, v.grid = 128, v.class_tokens = 8;
  EXPECT_EQ(count(m, 0), 32 * (12 * 1280 * 1280 + 13 * 1280) + 1280 * (768 + 128 * 128 + 8));
  EXPECT_NEAR(static_cast<double>(count(m, 0)), 651.6e6, 0.05e6);
  // Its projector in Nemotron-Nano-12B-v2-VL: 209.7 million.
  const int64_t encoder = count(m, 0);
  v.projector = "mlp", v.projector_ffn = 20480, v.out = 5120;
  EXPECT_NEAR(static_cast<double>(count(m, 0) - encoder), 209.7e6, 0.05e6);

  // Nemotron-Nano-9B-v2 and 12B-v2.
  HybridOptions& o = m.modules[1].hybrid;
  o.vocab = 131072, o.heads = 40, o.kv_heads = 8, o.head_dim = 128;
  o.ssm_heads = 128, o.ssm_head_dim = 80, o.ssm_groups = 8, o.ssm_state = 128;
  o.pattern = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-", o.hidden = 4480, o.ffn = 15680;
  EXPECT_NEAR(static_cast<double>(count(m, 1)), 8.888e9, 0.0005e9);
  o.pattern = "M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M-", o.hidden = 5120,
  o.ffn = 20480;
  EXPECT_NEAR(static_cast<double>(count(m, 1)), 12.310e9, 0.0005e9);
}

class Layouts : public testing::TestWithParam<std::string> {};

// Every rank's share: what is counted is what a stage holds, shards of a parameter add up to it, and the
// memory reported is that of the largest.
TEST_P(Layouts, CountsWhatStagesHold) {
  for (const char* activation : {"relu2", "swiglu"})
    for (const char* projector : {"mlp", "affine"}) {
      ModelSpec model = tiny_model(GetParam());
      model.modules[1].hybrid.activation = activation;
      model.modules[0].vit.projector = projector;
      for (int module : {0, 1})
        for (int tp : {1, 2})
          for (int pp = 1; pp <= std::min(3, model.modules[module].layers()); ++pp) {
            const Grid grid{.tp = tp, .pp = pp};
            std::map<std::string, int64_t> held;
            std::map<std::string, const Dims> shapes;
            for (int s = 0; s < pp; ++s) {
              int64_t most = 0;
              for (int t = 0; t < tp; ++t) {
                const Coord coord{.tp = t, .pp = s};
                const auto stage = make_stage(model, module, grid, coord, nullptr);
                int64_t here = 0;
                for (const Parameter* p : stage->parameters()) {
                  here += p->value.numel();
                  held[p->name] += p->copies.size() > 1 && t > 0 ? 0 : p->value.numel();
                  shapes.emplace(p->name, p->shape);
                }
                EXPECT_EQ(parameter_count(model, module, grid, coord), here);
                most = std::max(most, here);
              }
              const StageMemory memory = stage_memory(model, module, grid, s, {});
              EXPECT_EQ(memory.parameters, most);
              EXPECT_EQ(memory.parameter_bytes, 16 * most);  // value, gradient, two moments
              EXPECT_EQ(memory.activation_bytes, 0);
            }
            for (const auto& [name, shape] : shapes) EXPECT_EQ(held[name], numel(shape)) << name;
          }
    }
}
INSTANTIATE_TEST_SUITE_P(Patterns, Layouts, testing::Values("M", "S", "*", "-", "M-S*"));

TEST(StageMemory, BytesOfAParameter) {
  ModelSpec m = tiny_model("M");
  const int64_t n = parameter_count(m, 1, {}, {});
  const auto bytes = [&] { return stage_memory(m, 1, {}, 0, {}).parameter_bytes; };
  m.dtype = DType::bf16;
  EXPECT_EQ(bytes(), 18 * n);  // value 2, gradient, master and two moments 4 each
  m.modules[1].trainable = false;
  EXPECT_EQ(bytes(), 2 * n);
  m.dtype = DType::f32;
  EXPECT_EQ(bytes(), 4 * n);
}

TEST(StageFlops, IsTheCountByHand) {
  const ModelSpec m = tiny_model("MS*-");
  const HybridOptions& o = m.modules[1].hybrid;
  const auto layer = [&](char c) { return layer_flops(c, o, 15); };
  // Two a multiply-add. M: in 24 -> 2 32 + 2 16 + 4 = 100, out 32 -> 24, convolution of 64 channels with 4
  // taps; in chunks of 4, half of C B^T (2 groups of state 8) and of its product with x; states and their
  // use.
  EXPECT_EQ(layer('M'), 2 * (24 * 100 + 32 * 24 + 4 * 64) + (4 * 2 * 8 + 4 * 32) + 2 * 2 * 32 * 8);
  // S: in 24 -> 2 32, dt|B|C 32 -> 3 + 2 4, dt 3 -> 32, out 32 -> 24, convolution; seven a state and channel.
  EXPECT_EQ(layer('S'), 2 * (24 * 64 + 32 * 11 + 3 * 32 + 32 * 24 + 4 * 32) + 7 * 32 * 4);
  // *: q 24 -> 32, k and v 24 -> 16, out 32 -> 24; half of 15 keys, q k^T and p v.
  EXPECT_EQ(layer('*'), 2 * (24 * 32 + 2 * 24 * 16 + 32 * 24) + 2 * 32 * 15);
  EXPECT_EQ(layer('-'), 2 * (2 * 24 * 40));
  HybridOptions gated = o;
  gated.activation = "swiglu";
  EXPECT_EQ(layer_flops('-', gated, 15), 2 * (3 * 24 * 40));

  double language = 0;
  for (const SampleSizes& s : kSamples) {
    for (char c : {'M', 'S', '*', '-'}) language += s.tokens * layer_flops(c, o, s.tokens);
    language += s.counted * 2 * 24 * 21;
  }
  EXPECT_DOUBLE_EQ(stage_flops(m, 1, 0, 1, kSamples), language);
  EXPECT_DOUBLE_EQ(stage_flops(m, 1, 0, 2, kSamples) + stage_flops(m, 1, 1, 2, kSamples), language);

  const auto image = [](double rows) { return rows * 2 * (2 * (4 * 32 * 32 + 2 * 32 * 48) + 4 * 32 * rows); };
  const double vision = image(24 + 3) + image(4 + 3) + 2 * (24 + 4) * 4 * 32 + 2 * 7 * 40 * (128 + 24);
  EXPECT_DOUBLE_EQ(stage_flops(m, 0, 0, 1, kSamples), vision);
  EXPECT_DOUBLE_EQ(stage_flops(m, 0, 0, 2, kSamples) + stage_flops(m, 0, 1, 2, kSamples), vision);
}

SampleSizes sizes_of(const PackedBatch& b) {
  SampleSizes s{static_cast<int32_t>(b.tokens.size()), static_cast<int32_t>(b.counted), {{}}};
  for (size_t i = 0; i + 1 < b.items[0].cu_items.size(); ++i)
    s.items[0].push_back({b.items[0].sizes[2 * i], b.items[0].sizes[2 * i + 1],
                          b.items[0].sizes[2 * i] * b.items[0].sizes[2 * i + 1] / 4});
  return s;
}

class Activations : public testing::TestWithParam<std::string> {};

// What a stage keeps, against what the allocator counts after its forward. Not counted: statistics (of norms,
// attention and cross entropy: of each row 1 / d of the rest), row lists, and what blocks are rounded up by
// (an eighth).
TEST_P(Activations, AreThoseThatForwardKeeps) {
  for (const bool recompute : {false, true}) {
    ModelSpec m = tiny_model(GetParam());
    m.recompute = recompute;
    PackedBatch b = tiny::batch(DType::f32, 10);
    const SampleSizes sizes = sizes_of(b);
    const auto vision = make_stage(m, 0, {}, {}, nullptr), language = make_stage(m, 1, {}, {}, nullptr);
    Statistics s;
    const int64_t before = memory_total().current;
    Tensor features = vision->forward({}, b, s);
    const int64_t after = memory_total().current - features.numel() * 4;
    const Tensor in = leaf(features);
    const Tensor loss = language->forward(std::span(&in, 1), b, s);
    const int64_t at_end = memory_total().current - features.numel() * 4;
    const double expected[] = {double(stage_memory(m, 0, {}, 0, {sizes}).activation_bytes),
                               double(stage_memory(m, 1, {}, 0, {sizes}).activation_bytes)};
    const double got[] = {double(after - before), double(at_end - after)};
    for (int i : {0, 1}) {
      EXPECT_GE(got[i], 0.98 * expected[i]) << "module " << i << " recompute " << recompute;
      EXPECT_LE(got[i], 1.3 * expected[i]) << "module " << i << " recompute " << recompute;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Patterns, Activations, testing::Values("MMM", "SSS", "***", "---", "M-S*"));

}  // namespace
}  // namespace mimo
