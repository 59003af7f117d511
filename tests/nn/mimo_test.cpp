// The model as a whole: what layouts it refuses, what crosses stages, what everything costs.
#include "nn/mimo.h"

#include <gtest/gtest.h>

#include "nn/costs.h"
#include "nn/split_layers.h"
#include "tensor/error.h"
#include "tests/nn/tiny.h"

namespace mimo {
namespace {

Layout layout(const Grid& vision, const Grid& language) {
  return {{{"vision", vision}, {"language", language}}, 64};
}

// Two samples: text alone; text with images of 4 x 6 and 2 x 2 patches, four of which are a row.
const std::vector<SampleSizes> kSamples = {{7, 3, {{}}}, {15, 2, {{{4, 6, 6}, {2, 2, 1}}}}};

TEST(CheckModel, AcceptsWhatDivides) {
  EXPECT_NO_THROW(check_model(tiny::model("MS*-"), layout({.tp = 4, .pp = 2}, {.tp = 2, .pp = 4})));
  // Sizes of layers that are not there do not matter.
  const ModelSpec m = tiny::model("--", DType::f32,
                                  {"--module.language.kv_heads=3", "--module.language.ssm_groups=3",
                                   "--module.vision.projector=affine", "--module.vision.projector_ffn=7"});
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
      {"M||-*", {}, {.pp = 3}, {"module.language.pattern", "stage 1 has no layer"}},
      {"|M-", {}, {.pp = 2}, {"module.language.pattern", "stage 0 has no layer"}},
      {"M|-*M", {}, {.pp = 3}, {"module.language.pattern", "no | or 2 of them for pp3", "found 1"}},
  };
  for (const Row& r : rows) {
    std::string message = "no error";
    try {
      check_model(tiny::model(r.pattern), layout(r.vision, r.language));
    } catch (const ConfigError& e) {
      message = e.what();
    }
    for (const std::string& part : r.told)
      EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' in: " << message;
  }
  for (const std::string key : {"ffn", "projector_ffn"}) try {
      check_model(tiny::model("M", DType::f32, {"--module.vision." + key + "=7"}), layout({.tp = 2}, {}));
      ADD_FAILURE() << key;
    } catch (const ConfigError& e) {
      EXPECT_NE(std::string(e.what()).find("module.vision." + key), std::string::npos) << e.what();
    }
}

TEST(Stages, AreCutAtBarsElseByCost) {
  const auto cut = [](const std::string& pattern, int stages) {
    std::vector<std::pair<int, int>> layers;
    for (int s = 0; s < stages; ++s) layers.push_back(stage_layers(tiny::model(pattern)[1], s, stages));
    return layers;
  };
  using Layers = std::vector<std::pair<int, int>>;
  EXPECT_EQ(cut("MM|-*|M", 3), (Layers{{0, 2}, {2, 4}, {4, 5}}));
  EXPECT_EQ(cut("MM|-*|M", 1), (Layers{{0, 5}}));
  EXPECT_EQ(cut("----", 2), (Layers{{0, 2}, {2, 4}}));
  const ModelSpec m =
      tiny::model("----", DType::f32, {}, {100000, {{.name = "image"}}});  // the head outweighs all layers
  EXPECT_EQ(stage_layers(m[1], 0, 2), (std::pair{0, 3}));
  EXPECT_EQ(stage_layers(m[0], 1, 2), (std::pair{1, 2}));
  EXPECT_EQ(stage_parts(m[1], 0, 2), (Parts{0, 4}));
  EXPECT_EQ(stage_parts(m[1], 1, 2), (Parts{4, 6}));
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
  const ModelSpec m = tiny::model("M-");
  const StageEdge across{
      .src_module = 0, .src_stage = 1, .dst_module = 1, .dst_stage = 0, .src_port = 0, .dst_port = 0},
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
  // Ports lie in the stages of their parts.
  const ModelSpec late = tiny::model("M-*", DType::f32, {"--edges.vision=language,language.image@2"});
  EXPECT_EQ(module_edges(late, layout({.pp = 2}, {.pp = 3})),
            (ModuleEdges{{.src = 0, .dst = 1, .src_stage = 1},
                         {.src = 0, .dst = 1, .src_stage = 1, .dst_stage = 2, .dst_port = 1}}));
  EXPECT_EQ(module_edges(late, layout({.vp = 2}, {.vp = 3})),
            module_edges(late, layout({.pp = 2}, {.pp = 3})));
}

// The parameters of our modules, counted by hand elsewhere: published sizes of published models.
int64_t count(const ModelSpec& m, int module, const Grid& g = {}, const Coord& c = {}) {
  return parameter_count(m, module, g, c.pp, c);
}

TEST(ParameterCount, IsThatOfPublishedModels) {
  // A block of width 64 and ffn 256 with biases and two layer norms has 49,984 parameters; a vision
  // transformer of two of them on 14 x 14 patches of three channels with 146 x 146 positions has 1,501,824.
  using Strings = std::vector<std::string>;
  const auto vision = [](const Strings& sizes, int64_t width) {
    Strings overrides{"--module.language.hidden=" + std::to_string(width), "--module.vision.class_tokens=0"};
    for (const std::string& s : sizes) overrides.push_back("--module.vision." + s);
    return count(tiny::model("-", DType::f32, overrides, {21, {{.name = "image", .channels = 3}}}), 0);
  };
  const Strings small{"hidden=64", "ffn=256", "layers=2", "patch=14", "grid=146", "projector=none"};
  EXPECT_EQ(vision(small, 256), 1501824);
  Strings three = small;
  three.push_back("layers=3");
  EXPECT_EQ(vision(three, 256), 1501824 + 49984);
  // C-RADIOv2-H: 651.6 million.
  Strings radio{"hidden=1280", "ffn=5120", "layers=32",      "heads=16",
                "patch=16",    "grid=128", "class_tokens=8", "projector=none"};
  const int64_t encoder = vision(radio, 5120);
  EXPECT_EQ(encoder, 32 * (12 * 1280 * 1280 + 13 * 1280) + 1280 * (768 + 128 * 128 + 8));
  EXPECT_NEAR(static_cast<double>(encoder), 651.6e6, 0.05e6);
  // Its projector in Nemotron-Nano-12B-v2-VL: 209.7 million.
  radio.insert(radio.end(), {"projector=mlp", "projector_ffn=20480"});
  EXPECT_NEAR(static_cast<double>(vision(radio, 5120) - encoder), 209.7e6, 0.05e6);

  // Nemotron-Nano-9B-v2 and 12B-v2.
  const auto language = [](const std::string& pattern, const Strings& sizes) {
    Strings overrides;
    for (const char* s : {"heads=40", "kv_heads=8", "head_dim=128", "ssm_heads=128", "ssm_head_dim=80",
                          "ssm_groups=8", "ssm_state=128"})
      overrides.push_back(std::string("--module.language.") + s);
    for (const std::string& s : sizes) overrides.push_back("--module.language." + s);
    return static_cast<double>(
        count(tiny::model(pattern, DType::f32, overrides, {131072, {{.name = "image"}}}), 1));
  };
  EXPECT_NEAR(
      language("M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-", {"hidden=4480", "ffn=15680"}),
      8.888e9, 0.0005e9);
  EXPECT_NEAR(language("M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M-",
                       {"hidden=5120", "ffn=20480"}),
              12.310e9, 0.0005e9);
}

class Layouts : public testing::TestWithParam<std::string> {};

// Every rank's share: what is counted is what a stage holds, shards of a parameter add up to it, and the
// memory reported is that of the largest.
TEST_P(Layouts, CountsWhatStagesHold) {
  for (const char* activation : {"relu2", "swiglu"})
    for (const char* projector : {"mlp", "affine"}) {
      const ModelSpec model = tiny::model(GetParam(), DType::f32,
                                          {std::string("--module.language.activation=") + activation,
                                           std::string("--module.vision.projector=") + projector});
      for (int module : {0, 1})
        for (int tp : {1, 2})
          for (const auto& [pp, vp] : {std::pair{1, 1}, {2, 1}, {3, 1}, {1, 2}, {1, 3}, {2, 2}}) {
            if (pp * vp > model[module].layers()) continue;
            const Grid grid{.tp = tp, .pp = pp, .vp = vp};
            std::map<std::string, int64_t> held;
            std::map<std::string, const Dims> shapes;
            for (int s = 0; s < grid.stages(); ++s) {
              int64_t most = 0;
              for (int t = 0; t < tp; ++t) {
                const auto stage = make_stage(model, module, grid, s, {.tp = t}, nullptr);
                int64_t here = 0;
                for (const Parameter* p : stage->parameters()) {
                  here += p->value.numel();
                  held[p->name] += p->copies.size() > 1 && t > 0 ? 0 : p->value.numel();
                  shapes.emplace(p->name, p->shape);
                }
                EXPECT_EQ(parameter_count(model, module, grid, s, {.tp = t}), here);
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
  const auto memory = [](DType dtype, const std::string& frozen) {
    return stage_memory(tiny::model("M", dtype, {"--train.freeze=" + frozen}), 1, {}, 0, {});
  };
  const int64_t n = parameter_count(tiny::model("M"), 1, {}, 0, {}), embedding = 21 * 24;
  EXPECT_EQ(memory(DType::bf16, "[]").parameter_bytes,
            18 * n);  // value 2; gradient, master and moments 4 each
  EXPECT_EQ(memory(DType::bf16, "language.*").parameter_bytes, 2 * n);
  EXPECT_EQ(memory(DType::f32, "language.*").parameter_bytes, 4 * n);
  EXPECT_EQ(memory(DType::f32, "language.embeddings.*").parameter_bytes, 16 * n - 12 * embedding);
  EXPECT_EQ(memory(DType::f32, "language.embeddings.*").trainable, n - embedding);
}

TEST(StageFlops, IsTheCountByHand) {
  const ModelSpec m = tiny::model("MS*-");
  const auto layer = [](const ModelSpec& model, int part, int64_t length) {
    return model[1].cost(part, {{static_cast<int32_t>(length), 0, {{}}}}, 1, DType::f32).flops;
  };
  // Two a multiply-add. M: in 24 -> 2 32 + 2 16 + 4 = 100, out 32 -> 24, convolution of 64 channels with 4
  // taps; in chunks of 4, half of C B^T (2 groups of state 8) and of its product with x; states and their
  // use.
  EXPECT_EQ(layer(m, 1, 15),
            15 * (2 * (24 * 100 + 32 * 24 + 4 * 64) + (4 * 2 * 8 + 4 * 32) + 2 * 2 * 32 * 8));
  // S: in 24 -> 2 32, dt|B|C 32 -> 3 + 2 4, dt 3 -> 32, out 32 -> 24, convolution; seven a state and channel.
  EXPECT_EQ(layer(m, 2, 15), 15 * (2 * (24 * 64 + 32 * 11 + 3 * 32 + 32 * 24 + 4 * 32) + 7 * 32 * 4));
  // *: q 24 -> 32, k and v 24 -> 16, out 32 -> 24; half of 15 keys, q k^T and p v.
  EXPECT_EQ(layer(m, 3, 15), 15 * (2 * (24 * 32 + 2 * 24 * 16 + 32 * 24) + 2 * 32 * 15));
  EXPECT_EQ(layer(m, 4, 15), 15 * 2 * (2 * 24 * 40));
  EXPECT_EQ(layer(tiny::model("-", DType::f32, {"--module.language.activation=swiglu"}), 1, 15),
            15 * 2 * (3 * 24 * 40));

  double language = 0;
  for (const SampleSizes& s : kSamples) {
    for (int part = 1; part <= 4; ++part) language += layer(m, part, s.tokens);
    language += s.counted * 2 * 24 * 21;
  }
  EXPECT_DOUBLE_EQ(stage_flops(m, 1, 0, 1, kSamples).forward, language);
  EXPECT_DOUBLE_EQ(stage_flops(m, 1, 0, 2, kSamples).forward + stage_flops(m, 1, 1, 2, kSamples).forward,
                   language);

  const auto image = [](double rows) { return rows * 2 * (2 * (4 * 32 * 32 + 2 * 32 * 48) + 4 * 32 * rows); };
  const double embed = 2 * (24 + 4) * 4 * 32, project = 2 * 7 * 40 * (128 + 24),
               vision = image(24 + 3) + image(4 + 3) + embed + project;
  EXPECT_DOUBLE_EQ(stage_flops(m, 0, 0, 1, kSamples).forward, vision);
  EXPECT_DOUBLE_EQ(stage_flops(m, 0, 0, 2, kSamples).forward + stage_flops(m, 0, 1, 2, kSamples).forward,
                   vision);

  // Backward: weights and inputs each cost as much; pixels take no gradient.
  const auto backward = [](const std::vector<std::string>& overrides, int module) {
    return stage_flops(tiny::model("MS*-", DType::f32, overrides), module, 0, 1, kSamples).backward;
  };
  EXPECT_DOUBLE_EQ(backward({}, 0), 2 * vision - embed);
  EXPECT_DOUBLE_EQ(backward({}, 1), 2 * language);
  EXPECT_DOUBLE_EQ(backward({"--train.recompute=true"}, 0), 3 * vision - 2 * embed - project);
  EXPECT_DOUBLE_EQ(backward({"--train.freeze=vision.*"}, 0), 0);
  EXPECT_DOUBLE_EQ(backward({"--train.freeze=vision.*"}, 1), 2 * language);  // the embedding is trained
  EXPECT_DOUBLE_EQ(backward({"--train.freeze=language.*"}, 1), language);
  EXPECT_DOUBLE_EQ(backward({"--train.freeze=*", "--train.unfreeze=vision.projector.*"}, 0), project);
  EXPECT_DOUBLE_EQ(backward({"--train.freeze=*", "--train.unfreeze=language.lm_head.*"}, 1),
                   (3 + 2) * 2 * 24 * 21);
  EXPECT_DOUBLE_EQ(backward({"--train.freeze=*"}, 1), 0);
}

SampleSizes sizes_of(const PackedBatch& b) {
  SampleSizes s{static_cast<int32_t>(b.tokens.size()), static_cast<int32_t>(b.counted), {{}}};
  for (size_t i = 0; i + 1 < b.items[0].cu_items.size(); ++i)
    s.items[0].push_back({b.items[0].sizes[3 * i + 1], b.items[0].sizes[3 * i + 2],
                          b.items[0].sizes[3 * i + 1] * b.items[0].sizes[3 * i + 2] / 4});
  return s;
}

class Activations : public testing::TestWithParam<std::string> {};

// What a stage keeps, against what the allocator counts after its forward. Not counted: statistics (of norms,
// attention and cross entropy: of each row 1 / d of the rest), row lists, and what blocks are rounded up by
// (an eighth).
TEST_P(Activations, AreThoseThatForwardKeeps) {
  for (const bool recompute : {false, true}) {
    const ModelSpec m = tiny::model(GetParam(), DType::f32,
                                    {recompute ? "--train.recompute=true" : "--train.recompute=false"});
    PackedBatch b = tiny::batch(DType::f32, 10);
    const SampleSizes sizes = sizes_of(b);
    const auto vision = make_stage(m, 0, {}, 0, {}, nullptr), language = make_stage(m, 1, {}, 0, {}, nullptr);
    Sums sums({"loss"});
    Step step(sums);
    const int64_t before = memory_total().current;
    Tensor features = vision->forward({}, b, step).at(0);
    const int64_t after = memory_total().current - features.numel() * 4;
    const Tensor in = leaf(features);
    language->forward(std::span(&in, 1), b, step);
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
