// Training in plain double precision, written apart from the framework: what a step of a vision-language
// model is. Trainer is held against it.
#pragma once
#include <cmath>
#include <map>
#include <numbers>
#include <string>
#include <vector>

#include "tests/tools/plain_layers.h"

namespace plain {

struct Image {
  size_t height, width;        // in pixels
  std::vector<double> pixels;  // normalised
};
struct Sample {
  std::vector<int> tokens;  // the last one is only a label
  std::vector<bool> counted;
  std::map<size_t, Image> images;  // by place in the text
};

struct Settings {
  std::string pattern;
  size_t patch, grid, vision_heads, vision_dim, heads, kv_heads, dim, groups;
  double vision_eps = 1e-6, eps = 1e-5;
  double lr, min_lr, beta1, beta2, adam_eps, weight_decay, clip;
  int64_t warmup, steps;
};

struct Weight {
  std::vector<double> value, m, v;
  bool decays = true, trained = true;
};

class Trainer {
 public:
  struct Step {
    double loss, grad_norm, lr;
  };
  std::map<std::string, Weight> weights;

  explicit Trainer(const Settings& s) : s_(s) {}

  Step step(const std::vector<Sample>& batch) {
    tape.clear();
    for (const auto& [name, w] : weights) {
      Row& row = now_[name];
      row.clear();
      for (double x : w.value) row.push_back(made(x, 0, 0));
    }
    Number loss;
    double counted = 0;
    for (const Sample& sample : batch) loss = loss + loss_of(sample, counted);
    const std::vector<double> d = derivatives(loss);
    // All gradients are divided by the counted tokens of the step; their norm is that of all weights
    // together.
    double squares = 0;
    const auto gradient = [&](const std::string& name, size_t i) {
      return d[static_cast<size_t>(now_[name][i].at)] / counted;
    };
    for (const auto& [name, w] : weights)
      for (size_t i = 0; i < w.value.size() && w.trained; ++i)
        squares += gradient(name, i) * gradient(name, i);
    const Step result{loss.value / counted, std::sqrt(squares), learning_rate()};
    const double kept = s_.clip > 0 && result.grad_norm > s_.clip ? s_.clip / (result.grad_norm + 1e-6) : 1;
    ++done_;
    for (auto& [name, w] : weights)
      for (size_t i = 0; i < w.value.size() && w.trained; ++i) {
        const double g = gradient(name, i) * kept;
        w.m.resize(w.value.size()), w.v.resize(w.value.size());
        w.m[i] = s_.beta1 * w.m[i] + (1 - s_.beta1) * g;
        w.v[i] = s_.beta2 * w.v[i] + (1 - s_.beta2) * g * g;
        const double m = w.m[i] / (1 - std::pow(s_.beta1, done_)),
                     v = w.v[i] / (1 - std::pow(s_.beta2, done_));
        w.value[i] -=
            result.lr * (m / (std::sqrt(v) + s_.adam_eps) + (w.decays ? s_.weight_decay * w.value[i] : 0));
      }
    return result;
  }

 private:
  // A line up to lr, then half a cosine down to min_lr, which the last step has.
  double learning_rate() const {
    const auto at = static_cast<double>(done_), warmup = static_cast<double>(s_.warmup);
    if (done_ < s_.warmup) return s_.lr * (at + 1) / warmup;
    const double part = (at - warmup) / (static_cast<double>(s_.steps - 1) - warmup);
    return s_.min_lr + (s_.lr - s_.min_lr) * (1 + std::cos(std::numbers::pi * part)) / 2;
  }

  const Row& w(const std::string& name) const { return now_.at(name); }

  // An image as rows of the token stream: patches, a class token before them, a block, 2 x 2 patches a row.
  Rows see(const Image& image) const {
    const size_t p = s_.patch, high = image.height / p, wide = image.width / p;
    Rows patches;
    for (size_t y = 0; y < high; ++y)
      for (size_t x = 0; x < wide; ++x) {
        Row& row = patches.emplace_back();
        for (size_t yy = 0; yy < p; ++yy)
          for (size_t xx = 0; xx < p; ++xx)
            row.push_back(image.pixels[(y * p + yy) * image.width + x * p + xx]);
      }
    Rows x = linear(patches, w("vision.patch_generator.embedder.weight"));
    const size_t width = x[0].size();
    const Row& positions = w("vision.patch_generator.pos_embed");
    for (size_t i = 0; i < x.size(); ++i)
      for (size_t k = 0; k < width; ++k)
        x[i][k] = x[i][k] + positions[((i / wide) * s_.grid + i % wide) * width + k];
    x.insert(x.begin(), w("vision.patch_generator.cls_token.token"));

    const std::string block = "vision.blocks.0.";
    const auto norm = [&](const Rows& in, const std::string& name) {
      return layer_norm(in, w(block + name + ".weight"), w(block + name + ".bias"), s_.vision_eps);
    };
    const auto layer = [&](const Rows& in, const std::string& name) {
      return linear(in, w(block + name + ".weight"), w(block + name + ".bias"));
    };
    const Rows seen = attention(layer(norm(x, "norm1"), "attn.qkv"), s_.vision_heads, s_.vision_heads,
                                s_.vision_dim, false);
    x = add(x, layer(seen, "attn.proj"));
    x = add(x, layer(each(layer(norm(x, "norm2"), "mlp.fc1"), silu), "mlp.fc2"));

    Rows joined;
    for (size_t y = 0; y < high; y += 2)
      for (size_t column = 0; column < wide; column += 2) {
        Row& row = joined.emplace_back();
        for (size_t part = 0; part < 4; ++part) {
          const Row& from = x[1 + (y + part / 2) * wide + column + part % 2];
          row.insert(row.end(), from.begin(), from.end());
        }
      }
    joined = linear(rms_norm(joined, w("vision.projector.norm.weight"), 1e-5),
                    w("vision.projector.linear1.weight"));
    return linear(each(joined, relu2), w("vision.projector.linear2.weight"));
  }

  // A layer of the language model by its symbol.
  Rows mix(char symbol, const std::string& name, const Rows& x) const {
    const auto layer = [&](const Rows& in, const std::string& of) {
      return linear(in, w(name + of + ".weight"));
    };
    const auto gate = [](Rows y, const Rows& z) {
      for (size_t t = 0; t < y.size(); ++t)
        for (size_t c = 0; c < y[t].size(); ++c) y[t][c] = y[t][c] * silu(z[t][c]);
      return y;
    };
    const auto steps = [](Rows dt, const Row& bias) {
      return each(add(dt, Rows(dt.size(), bias)), softplus);
    };
    if (symbol == '*')
      return layer(attention(layer(x, "qkv_proj"), s_.heads, s_.kv_heads, s_.dim, true), "o_proj");
    if (symbol == '-') return layer(each(layer(x, "up_proj"), relu2), "down_proj");
    const Rows in = layer(x, "in_proj");
    const Row &conv = w(name + "conv1d.weight"), &bias = w(name + "conv1d.bias"), &a_log = w(name + "A_log"),
              &d = w(name + "D");
    if (symbol == 'M') {  // z | x | B | C | dt, of which x | B | C pass the convolution
      const Row& scale = w(name + "norm.weight");
      const size_t inner = scale.size(), bc = (bias.size() - inner) / 2;
      const Rows xbc = causal_conv(columns(in, inner, bias.size()), conv, bias);
      const Rows dt = steps(columns(in, inner + bias.size(), d.size()), w(name + "dt_bias"));
      const Rows y = gate(ssd(columns(xbc, 0, inner), columns(xbc, inner, bc), columns(xbc, inner + bc, bc),
                              dt, a_log, d, s_.groups),
                          columns(in, 0, inner));
      Rows out(y.size());  // every group is normed by itself
      for (size_t group = 0, width = inner / s_.groups; group < s_.groups; ++group) {
        const Rows part =
            rms_norm(columns(y, group * width, width), columns({scale}, group * width, width)[0], s_.eps);
        for (size_t t = 0; t < y.size(); ++t) out[t].insert(out[t].end(), part[t].begin(), part[t].end());
      }
      return layer(out, "out_proj");
    }
    // 'S': x | z, and dt | B | C of the convolution's result
    const size_t inner = d.size(), state = a_log.size() / inner;
    const Rows u = causal_conv(columns(in, 0, inner), conv, bias), dbc = layer(u, "x_proj");
    const size_t rank = dbc[0].size() - 2 * state;
    const Rows delta = steps(layer(columns(dbc, 0, rank), "dt_proj"), w(name + "dt_proj.bias"));
    const Rows y =
        selective_scan(u, delta, columns(dbc, rank, state), columns(dbc, rank + state, state), a_log, d);
    return layer(gate(y, columns(in, inner, inner)), "out_proj");
  }

  // Sum of -ln p(next token) over the tokens that count; counted: their number is added.
  Number loss_of(const Sample& sample, double& counted) const {
    const Row& table = w("language.embeddings.weight");
    const size_t width = w("language.norm_f.weight").size();
    Rows h;
    std::vector<int> labels;  // of every row; -1: does not count
    for (size_t t = 0; t + 1 < sample.tokens.size(); ++t) {
      const auto image = sample.images.find(t);
      const auto word = table.begin() + static_cast<int64_t>(width) * sample.tokens[t];
      const Rows rows = image == sample.images.end() ? Rows{Row(word, word + static_cast<int64_t>(width))}
                                                     : see(image->second);
      h.insert(h.end(), rows.begin(), rows.end());
      labels.resize(h.size(), -1);
      if (sample.counted[t + 1]) labels.back() = sample.tokens[t + 1];
    }
    const auto norm = [&](const Rows& in, const std::string& name) {
      return rms_norm(in, w("language." + name + ".weight"), s_.eps);
    };
    for (size_t i = 0; i < s_.pattern.size(); ++i) {
      const std::string at = "layers." + std::to_string(i);
      h = add(h, mix(s_.pattern[i], "language." + at + ".mixer.", norm(h, at + ".norm")));
    }
    Number loss;
    const Rows logits = linear(norm(h, "norm_f"), w("language.lm_head.weight"));
    for (size_t i = 0; i < labels.size(); ++i) {
      if (labels[i] < 0) continue;
      Number sum;
      for (Number z : logits[i]) sum = sum + exp(z);
      loss = loss + log(sum) - logits[i][static_cast<size_t>(labels[i])];
      ++counted;
    }
    return loss;
  }

  Settings s_;
  int64_t done_ = 0;
  std::map<std::string, Row> now_;  // the weights of the step, on its tape
};

}  // namespace plain
