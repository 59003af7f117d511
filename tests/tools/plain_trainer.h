// Training in plain double precision, written apart from the framework: what a step of a vision-language
// model is, sample by sample and number by number.
#pragma once
#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <string>
#include <vector>

namespace plain {

// A number that knows how it came about: the tape lists every number of a step with the two that it was made
// of and its derivatives by them, so that one walk back gives the derivative of the loss by each.
struct Entry {
  int a, b;
  double da, db;
};
inline std::vector<Entry> tape;

struct Number {
  double value;
  int at = -1;  // on the tape; -1: a constant
  Number(double v = 0) : value(v) {}
};
// A number made of a and b, with its derivatives by them.
inline Number made(double value, Number a, double da, Number b = 0, double db = 0) {
  Number n(value);
  n.at = static_cast<int>(tape.size());
  tape.push_back({a.at, b.at, da, db});
  return n;
}
inline Number operator+(Number a, Number b) { return made(a.value + b.value, a, 1, b, 1); }
inline Number operator-(Number a, Number b) { return made(a.value - b.value, a, 1, b, -1); }
inline Number operator*(Number a, Number b) { return made(a.value * b.value, a, b.value, b, a.value); }
inline Number operator/(Number a, Number b) {
  return made(a.value / b.value, a, 1 / b.value, b, -a.value / (b.value * b.value));
}
inline Number exp(Number a) { return made(std::exp(a.value), a, std::exp(a.value)); }
inline Number log(Number a) { return made(std::log(a.value), a, 1 / a.value); }
inline Number sqrt(Number a) { return made(std::sqrt(a.value), a, 0.5 / std::sqrt(a.value)); }
inline Number relu2(Number a) { return a.value > 0 ? a * a : 0; }
inline Number silu(Number a) { return a / (1 + exp(0 - a)); }

// d loss / d (every number of the tape).
inline std::vector<double> derivatives(Number loss) {
  std::vector<double> d(tape.size(), 0);
  if (loss.at >= 0) d[static_cast<size_t>(loss.at)] = 1;
  for (size_t i = tape.size(); i-- > 0;) {
    if (tape[i].a >= 0) d[static_cast<size_t>(tape[i].a)] += d[i] * tape[i].da;
    if (tape[i].b >= 0) d[static_cast<size_t>(tape[i].b)] += d[i] * tape[i].db;
  }
  return d;
}

using Row = std::vector<Number>;
using Rows = std::vector<Row>;

inline Rows add(const Rows& a, const Rows& b) {
  Rows c = a;
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t k = 0; k < a[i].size(); ++k) c[i][k] = a[i][k] + b[i][k];
  return c;
}

template <class F>
Rows each(Rows x, F f) {
  for (Row& row : x)
    for (Number& n : row) n = f(n);
  return x;
}

inline Number mean(const Row& x) {
  Number sum;
  for (Number n : x) sum = sum + n;
  return sum / static_cast<double>(x.size());
}

// x W^T + b, W row by row.
inline Rows linear(const Rows& x, const Row& w, const Row& b = {}) {
  Rows y;
  for (const Row& in : x) {
    Row& out = y.emplace_back(w.size() / in.size());
    for (size_t o = 0; o < out.size(); ++o) {
      if (!b.empty()) out[o] = b[o];
      for (size_t i = 0; i < in.size(); ++i) out[o] = out[o] + w[o * in.size() + i] * in[i];
    }
  }
  return y;
}

inline Rows rms_norm(Rows x, const Row& w, double eps) {
  for (Row& row : x) {
    Row squares;
    for (Number n : row) squares.push_back(n * n);
    const Number scale = 1 / sqrt(mean(squares) + eps);
    for (size_t k = 0; k < row.size(); ++k) row[k] = row[k] * scale * w[k];
  }
  return x;
}

inline Rows layer_norm(Rows x, const Row& w, const Row& b, double eps) {
  for (Row& row : x) {
    const Number middle = mean(row);
    for (Number& n : row) n = n - middle;
  }
  return add(rms_norm(x, w, eps), Rows(x.size(), b));
}

// Columns q | k | v; query head h reads key-value head h / (heads / kv_heads).
inline Rows attention(const Rows& qkv, size_t heads, size_t kv_heads, size_t dim, bool causal) {
  Rows out(qkv.size(), Row(heads * dim));
  for (size_t h = 0; h < heads; ++h) {
    const size_t q = h * dim, k = (heads + h / (heads / kv_heads)) * dim, v = k + kv_heads * dim;
    for (size_t i = 0; i < qkv.size(); ++i) {
      Row weights;
      Number sum;
      for (size_t j = 0; j < (causal ? i + 1 : qkv.size()); ++j) {
        Number score;
        for (size_t c = 0; c < dim; ++c) score = score + qkv[i][q + c] * qkv[j][k + c];
        weights.push_back(exp(score / std::sqrt(static_cast<double>(dim))));
        sum = sum + weights.back();
      }
      for (size_t j = 0; j < weights.size(); ++j)
        for (size_t c = 0; c < dim; ++c) out[i][q + c] = out[i][q + c] + weights[j] / sum * qkv[j][v + c];
    }
  }
  return out;
}

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
  size_t patch = 2, grid = 4, vision_heads = 2, vision_dim = 8, heads = 2, kv_heads = 1, dim = 8;
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
    const auto layer = [&](const Rows& in, const std::string& name) {
      return linear(in, w("language." + name + ".weight"));
    };
    const Rows heard = attention(layer(norm(h, "layers.0.norm"), "layers.0.mixer.qkv_proj"), s_.heads,
                                 s_.kv_heads, s_.dim, true);
    h = add(h, layer(heard, "layers.0.mixer.o_proj"));
    const Rows inner = each(layer(norm(h, "layers.1.norm"), "layers.1.mixer.up_proj"), relu2);
    h = add(h, layer(inner, "layers.1.mixer.down_proj"));

    Number loss;
    const Rows logits = layer(norm(h, "norm_f"), "lm_head");
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
