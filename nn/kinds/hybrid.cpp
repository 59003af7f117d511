// The hybrid language model: layers by a pattern string, each h += mixer(rms_norm(h)), over a token stream in
// which the rows of images come from the encoders.
//   h = Embed(tokens) with encoder rows in their places;  logits = rms_norm(h) W_head^T at the rows whose
//   label counts
// An input port "image" (any modality) brings rows to their places in the embedding, "image@3" adds them to
// the stream before layer 3.
// Parameter names are those of the published weights (Nemotron-H, Mamba) without their wrapper prefixes.
// Fused here, separate there: qkv_proj = q_proj | k_proj | v_proj, gate_up_proj = gate_proj | up_proj.
// Source: Nemotron-H, 2025 (arXiv 2504.03624).
#include <algorithm>
#include <charconv>
#include <cmath>

#include "io/fields.h"
#include "nn/layered_stage.h"
#include "nn/linear.h"
#include "nn/mixer.h"
#include "nn/ops.h"
#include "parallel/collectives.h"
#include "tensor/error.h"

namespace mimo {
namespace {

struct Options {
  std::string pattern;
  int64_t hidden = 0;
  int conv_width = 4;
  double embedding_std = 0.02, eps = 1e-5;
};

const Fields<Options>& fields() {
  static const Fields<Options> all = [] {
    Fields<Options> f;
    f.add("pattern", &Options::pattern,
          "layers by their symbols (* attention, - MLP, M Mamba-2, S Mamba-1), | stage boundary")
        .required();
    f.add("hidden", &Options::hidden, "width").range(8, 1 << 16).required();
    f.add("conv_width", &Options::conv_width, "Mamba: taps of the causal convolution").range(2, 8);
    f.add("embedding_std", &Options::embedding_std, "standard deviation of the initial token embedding")
        .range(0, 1000)
        .fixing("");
    f.add("norm_eps", &Options::eps, "of the RMS norms").above(0, 1);
    return f;
  }();
  return all;
}

using Mixers = std::map<char, std::shared_ptr<const MixerSpec>>;

struct Shape {
  Options o;
  std::string symbols;  // of the layers
  int64_t vocab = 0;
  Mixers mixers;
  int layers() const { return static_cast<int>(symbols.size()); }
};

// Where an input enters: with which modality's rows, before which part.
struct Entrance {
  int part, modality;
};

class HybridStage : public LayeredStage {
 public:
  HybridStage(const Shape& shape, std::vector<Entrance> entrances, const ModuleContext& context)
      : LayeredStage(context), o_(shape.o), back_(shape.layers() + 1), entrances_(std::move(entrances)) {
    const Parts parts = context.parts;
    const Cut vocabulary{.axis = 0, .uneven = true};
    if (holds(0)) {
      set_.begin_part(0);
      embedding_ =
          &set_.make("embeddings.weight", {shape.vocab, o_.hidden}, vocabulary, normal(o_.embedding_std));
    }
    for (int part = std::max(parts.begin, 1); part < std::min(parts.end, back_); ++part) {
      set_.begin_part(part);
      const std::string prefix = "layers." + std::to_string(part - 1);
      Parameter& norm = set_.make(prefix + ".norm.weight", {o_.hidden}, kReplicated, constant(1));
      const char symbol = shape.symbols[static_cast<size_t>(part - 1)];
      layers_.push_back({part, &norm, shape.mixers.at(symbol)->make(set_, prefix + ".mixer")});
    }
    if (holds(back_)) {
      set_.begin_part(back_);
      norm_ = &set_.make("norm_f.weight", {o_.hidden}, kReplicated, constant(1));
      head_.weight = &set_.make("lm_head.weight", {shape.vocab, o_.hidden}, vocabulary,
                                normal(context.std_of(o_.hidden)));
      head_.group = set_.group();
    }
    first_row_ = shape.vocab * context.coord.tp / context.grid.tp;
  }

  std::vector<Tensor> forward(std::span<const Tensor> inputs, const PackedBatch& batch, Step& step) override {
    MIMO_CHECK(batch.position_axes == 1, "positions of one axis");
    const Sequences s = sequences(batch.cu_seqlens, batch.positions);
    const size_t first = holds(0) ? 0 : 1;  // an earlier stage's stream comes first
    Tensor h = holds(0) ? embed(batch) : inputs[0];
    const auto enter = [&](int part) {
      for (size_t i = 0; i < entrances_.size(); ++i) {
        if (entrances_[i].part != part) continue;
        const Tensor rows = Tensor::of(batch.items.at(static_cast<size_t>(entrances_[i].modality)).rows);
        h = part == 0 ? place_rows(h, inputs[first + i], rows) : add_rows(h, inputs[first + i], rows);
      }
    };
    enter(0);
    for (const Layer& layer : layers_) {
      enter(layer.part);
      h = run_part(layer.part, h, step, [&layer, s, eps = o_.eps, &step](const Tensor& in) {
        return add(in, (*layer.mixer)(rms_norm(in, *layer.norm, eps), s, step));
      });
    }
    if (!norm_) return {h};
    loss(step.enter(h, back_), batch, step);
    return {};
  }
  std::vector<Prediction> predictions() const override {
    std::vector<Prediction> out = predictions_;
    const std::vector<int32_t> argmax = argmax_.to_vector<int32_t>();
    std::vector<double> sums;
    dispatch(sums_.dtype(), [&]<class T>() {
      for (const T x : sums_.to_vector<T>()) sums.push_back(static_cast<double>(x));
    });
    for (size_t i = 0; i < out.size(); ++i) {
      out[i].argmax = argmax[i];
      out[i].loss = std::log(sums[i]) - sums[out.size() + i];
    }
    return out;
  }

 private:
  struct Layer {
    int part;
    Parameter* norm;
    std::unique_ptr<Mixer> mixer;
  };

  // Zeros where items have their places.
  Tensor embed(const PackedBatch& batch) const {
    std::vector<int32_t> ids = batch.tokens;
    for (const PackedItems& items : batch.items)
      for (int32_t row : items.rows) ids[static_cast<size_t>(row)] = -1;
    return reduce_from_group(embedding(Tensor::of(ids), *embedding_, first_row_), set_.group());
  }

  // Only the rows whose label counts pass the head.
  void loss(const Tensor& h, const PackedBatch& batch, Step& step) {
    std::vector<int32_t> rows, labels;
    predictions_.clear();
    for (size_t n = 0; n + 1 < batch.cu_seqlens.size(); ++n)
      for (int32_t t = batch.cu_seqlens[n]; t < batch.cu_seqlens[n + 1]; ++t)
        if (const int32_t label = batch.labels[static_cast<size_t>(t)]; label >= 0) {
          rows.push_back(t);
          labels.push_back(label);
          predictions_.push_back({static_cast<int>(n), 0, label, 0});
        }
    const Tensor logits = head_(rms_norm(gather_rows(h, Tensor::of(rows)), *norm_, o_.eps));
    const Tensor total = set_.context().coord.tp == 0 ? step.sums.on_device("loss") : Tensor();
    const CrossEntropyResult r = cross_entropy(logits, Tensor::of(labels), first_row_, set_.group(), total);
    argmax_ = r.argmax;
    sums_ = r.sums;
    step.loss(r.loss_sum);
  }

  Options o_;
  int back_;
  std::vector<Entrance> entrances_;  // of this stage, in the order of its inputs
  Parameter *embedding_ = nullptr, *norm_ = nullptr;
  std::vector<Layer> layers_;
  Linear head_;
  int64_t first_row_ = 0;
  std::vector<Prediction> predictions_;  // of the last forward, but for argmax and loss
  Tensor argmax_, sums_;
};

class Hybrid : public Module {
 public:
  Hybrid(Shape shape, std::vector<std::string> modalities)
      : shape_(std::move(shape)), modalities_(std::move(modalities)) {}

  int layers() const override { return shape_.layers(); }
  int64_t width() const override { return shape_.o.hidden; }
  int64_t rows(const SampleSizes& s) const override { return s.tokens; }
  std::string layer_type(int layer) const override {
    return std::string(1, shape_.symbols[static_cast<size_t>(layer)]);
  }
  std::vector<int> marks() const override {
    std::vector<int> out;
    int layers = 0;
    for (const char c : shape_.o.pattern) c == '|' ? out.push_back(layers) : void(++layers);
    return out;
  }
  bool predicts() const override { return true; }
  std::vector<std::string> sums() const override { return {"loss"}; }

  // "image", or "image@LAYER".
  int input(const std::string& port, int modality, const std::string& at) override {
    const std::string wanted =
        port.empty() && modality >= 0 ? modalities_[static_cast<size_t>(modality)] : port;
    for (size_t i = 0; i < inputs_.size(); ++i)
      if (inputs_[i].name == wanted) return static_cast<int>(i);
    const size_t mark = std::min(wanted.find('@'), wanted.size());
    const auto found = std::find(modalities_.begin(), modalities_.end(), wanted.substr(0, mark));
    int layer = -1;
    if (mark < wanted.size()) {
      const auto [end, error] =
          std::from_chars(wanted.data() + mark + 1, wanted.data() + wanted.size(), layer);
      if (error != std::errc() || end != wanted.data() + wanted.size() || layer >= layers()) layer = -2;
    }
    if (found == modalities_.end() || layer < -1)
      throw ConfigError(at, "no such input of " + name + ": expected a modality, or one with a layer as in " +
                                (modalities_.empty() ? "image" : modalities_[0]) + "@0, found \"" + wanted +
                                '"');
    inputs_.push_back({.name = wanted, .part = layer + 1, .width = shape_.o.hidden});
    entrances_.push_back({layer + 1, static_cast<int>(found - modalities_.begin())});
    return static_cast<int>(inputs_.size()) - 1;
  }

  void check(int tp) const override {
    for (const auto& [symbol, mixer] : shape_.mixers) mixer->check(tp);
  }
  PartCost cost(int part, const std::vector<SampleSizes>& samples, int tp, DType dtype) const override {
    int64_t tokens = 0, counted = 0;
    for (const SampleSizes& s : samples) tokens += s.tokens, counted += s.counted;
    const int64_t d = shape_.o.hidden, value = size_of(dtype), acc = size_of(acc_of(dtype));
    PartCost c;
    if (part == 0) {
      c.forward.add(tokens * d * value);  // each rank embeds its part of the vocabulary
    } else if (part <= layers()) {
      const MixerSpec& mixer = *shape_.mixers.at(shape_.symbols[static_cast<size_t>(part - 1)]);
      for (const SampleSizes& s : samples) c.flops += s.tokens * mixer.flops(s.tokens);
      // The input of its norm and the norm's result, then what the mixer keeps.
      c.kept = static_cast<double>(tokens) * (2 * static_cast<double>(d) + mixer.kept(tp));
      for (Traffic* t : {&c.forward, &c.backward})
        t->add(tokens * d * value), t->add(tokens * mixer.columns_summed() * value);
    } else {
      c.flops = static_cast<double>(counted) * 2 * static_cast<double>(d * shape_.vocab);
      c.kept =
          static_cast<double>(counted) *
          (2 * static_cast<double>(d) + static_cast<double>(shape_.vocab) / tp);  // final norm and logits
      c.backward.add(counted * d * value);
      for (int64_t bytes : {acc, size_of(DType::i32), 2 * acc})
        c.forward.add(counted * bytes);  // cross_entropy
    }
    return c;
  }
  std::unique_ptr<Stage> make_stage(const ModuleContext& context) const override {
    std::vector<Entrance> here;
    for (const Entrance& e : entrances_)
      if (context.parts.contains(e.part)) here.push_back(e);
    return std::make_unique<HybridStage>(shape_, std::move(here), context);
  }

 private:
  Shape shape_;
  std::vector<std::string> modalities_;
  std::vector<Entrance> entrances_;  // by input port
};

std::unique_ptr<Module> read(const Config::Section& s, const DataSpec& data) {
  Shape shape;
  shape.o = fields().read(s);
  shape.vocab = data.vocab;
  for (const char c : shape.o.pattern) {
    if (c == '|') continue;
    if (!Registry<MixerKind>::find(std::string(1, c)))
      throw ConfigError(s.place("pattern"), "unknown layer: expected symbols of " +
                                                Registry<MixerKind>::names(" ") + " and |, found '" + c +
                                                "'");
    shape.symbols += c;
  }
  constexpr size_t kLayers = 1000;  // as of an encoder
  if (const size_t n = shape.symbols.size(); n < 1 || n > kLayers)
    throw ConfigError(s.place("pattern"), n < 1
                                              ? "no layer in the pattern"
                                              : "too many layers: expected at most " +
                                                    std::to_string(kLayers) + ", found " + std::to_string(n));
  const HybridStream stream{.module = s.name(),
                            .hidden = shape.o.hidden,
                            .layers = shape.layers(),
                            .conv_width = shape.o.conv_width,
                            .eps = shape.o.eps};
  for (const char c : shape.symbols)
    if (!shape.mixers.contains(c))
      shape.mixers[c] = Registry<MixerKind>::find(std::string(1, c))->read(s, stream);
  std::vector<std::string> modalities;
  for (const Modality& m : data.modalities) modalities.push_back(m.name);
  return std::make_unique<Hybrid>(std::move(shape), std::move(modalities));
}

void declare(Keys& keys) {
  fields().declare(keys);
  for (const auto& [symbol, mixer] : Registry<MixerKind>::all()) mixer.declare(keys);
}

const Registry<ModuleKind>::Entry entry{
    {.name = "hybrid", .help = "hybrid Mamba / attention language model", .declare = declare, .read = read}};

}  // namespace
}  // namespace mimo
