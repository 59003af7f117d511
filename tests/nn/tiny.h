// A tiny vision-language model and a ragged batch for it, shared by the tests of nn.
#pragma once
#include <random>

#include "nn/mimo.h"

namespace mimo::tiny {

inline const char* const kText = R"(
[module.vision]
kind = "vit"
hidden = 32
ffn = 48
layers = 2
heads = 4
patch = 2
class_tokens = 3
grid = 8
projector_ffn = 40
init_std = 0.3

[module.language]
kind = "hybrid"
hidden = 24
ffn = 40
heads = 4
kv_heads = 2
head_dim = 8
ssm_heads = 4
ssm_head_dim = 8
ssm_groups = 2
ssm_state = 8
ssm_chunk = 4
scan_inner = 32
scan_state = 4
scan_dt_rank = 3
init_std = 0.3
)";

// Module 0 is vision, module 1 language.
inline ModelSpec model(const std::string& pattern, DType dtype = DType::f32,
                       std::vector<std::string> overrides = {},
                       const DataSpec& data = {21, {{.name = "image"}}}) {
  Schema schema;
  declare_run_keys(schema);
  declare_model_keys(schema);
  overrides.insert(overrides.begin(), {"--module.language.pattern=" + pattern, "--train.seed=7"});
  ModelSpec m = model_spec(parse_config(schema, kText, "tiny", overrides), data);
  m.dtype = dtype;
  return m;
}

// Four samples, `repeat` times: text only; one image of 4 x 6 patches; two images; an image and nothing
// counted.
inline PackedBatch batch(DType dtype, int repeat = 1) {
  PackedBatch b;
  b.items.resize(1);
  b.items[0].cu_items = {0};
  b.cu_seqlens = {0};
  std::mt19937 random(3);
  struct Sample {
    std::vector<std::array<int, 2>> images;
    int text, counted;
  };
  const std::vector<Sample> samples{{{}, 7, 3}, {{{4, 6}}, 3, 2}, {{{2, 2}, {6, 2}}, 5, 4}, {{{4, 4}}, 2, 0}};
  for (size_t n = 0; n < samples.size() * repeat; ++n) {
    const Sample& s = samples[n % samples.size()];
    const int begin = static_cast<int>(b.tokens.size());
    const auto push = [&](int token) {
      b.tokens.push_back(token);
      b.positions.push_back(static_cast<int>(b.tokens.size()) - 1 - begin);
      b.labels.push_back(-1);
    };
    push(1);
    for (const auto& [h, w] : s.images) {
      b.items[0].sizes.insert(b.items[0].sizes.end(), {1, h, w});
      b.items[0].cu_items.push_back(b.items[0].cu_items.back() + h * w);
      for (int r = 0; r < h * w / 4; ++r) {
        b.items[0].rows.push_back(static_cast<int>(b.tokens.size()));
        push(20);
      }
    }
    for (int t = 0; t < s.text; ++t) push(2 + static_cast<int>(random() % 17));
    const int end = static_cast<int>(b.tokens.size());
    for (int t = end - s.counted; t < end; ++t) b.labels[t] = static_cast<int>(random() % 20);
    b.counted += s.counted;
    b.cu_seqlens.push_back(end);
    b.samples.push_back(static_cast<int64_t>(b.samples.size()));
  }
  const int64_t patches = b.items[0].cu_items.back();
  std::normal_distribution<double> normal;
  std::vector<double> pixels(patches * 4);
  for (double& p : pixels) p = normal(random);
  const Tensor p = Tensor::of(pixels, {patches, 4});
  b.items[0].patches = dtype == DType::f64 ? p : Tensor::empty(p.shape(), dtype);
  if (dtype != DType::f64)
    dispatch(dtype, [&]<class T>() {
      for (size_t i = 0; i < pixels.size(); ++i)
        b.items[0].patches.data<T>()[i] = T(static_cast<float>(pixels[i]));
    });
  return b;
}

}  // namespace mimo::tiny
