#include "nn/hybrid.h"

#include "parallel/collectives.h"

namespace mimo {
namespace {

class HybridStage : public LanguageStage {
 public:
  HybridStage(const HybridOptions& o, const ModuleContext& context, int begin, int end, bool recompute)
      : o_(o), set_(context), recompute_(recompute) {
    const std::string symbols = layer_symbols(o.pattern);
    const Cut vocabulary{.axis = 0, .uneven = true};
    if (begin == 0)
      embedding_ = &set_.make("embeddings.weight", {o.vocab, o.hidden}, vocabulary, normal(o.embedding_std));
    for (int i = begin; i < end; ++i) {
      const std::string prefix = "layers." + std::to_string(i);
      Parameter& norm = set_.make(prefix + ".norm.weight", {o.hidden}, kReplicated, constant(1));
      layers_.push_back({&norm, make_mixer(symbols[i], set_, prefix + ".mixer", o)});
    }
    if (end == static_cast<int>(symbols.size())) {
      norm_ = &set_.make("norm_f.weight", {o.hidden}, kReplicated, constant(1));
      head_.weight =
          &set_.make("lm_head.weight", {o.vocab, o.hidden}, vocabulary, normal(context.std_of(o.hidden)));
      head_.group = set_.group();
    }
    first_row_ = o.vocab * context.coord.tp / context.grid.tp;
  }

  Tensor forward(std::span<const Tensor> inputs, const PackedBatch& batch, Statistics& statistics) override {
    const Sequences s = sequences(batch.cu_seqlens, batch.positions);
    Tensor h = embedding_ ? embed(inputs, batch) : inputs[0];
    for (const Layer& layer : layers_) {
      const auto run = [&layer, s, eps = o_.eps](const std::vector<Tensor>& in) {
        return add(in[0], (*layer.mixer)(rms_norm(in[0], *layer.norm, eps), s));
      };
      h = recompute_ ? mimo::recompute(run, {h}, set_.context().trainable) : run({h});
    }
    return norm_ ? loss(h, batch, statistics) : h;
  }
  std::vector<Parameter*> parameters() override { return set_.all(); }
  std::vector<Prediction> predictions() const override {
    std::vector<Prediction> out = predictions_;
    const std::vector<int32_t> argmax = argmax_.to_vector<int32_t>();
    for (size_t i = 0; i < out.size(); ++i) out[i].argmax = argmax[i];
    return out;
  }

 private:
  struct Layer {
    Parameter* norm;
    std::unique_ptr<Mixer> mixer;
  };

  Tensor embed(std::span<const Tensor> inputs, const PackedBatch& batch) const {
    std::vector<int32_t> ids = batch.tokens;
    for (const PackedItems& items : batch.items)
      for (int32_t row : items.rows) ids[row] = -1;
    Tensor h = reduce_from_group(embedding(Tensor::of(ids), *embedding_, first_row_), set_.group());
    for (size_t m = 0; m < inputs.size(); ++m)
      h = place_rows(h, inputs[m], Tensor::of(batch.items.at(m).rows));
    return h;
  }

  // Only the rows whose label counts pass the head.
  Tensor loss(const Tensor& h, const PackedBatch& batch, Statistics& statistics) {
    std::vector<int32_t> rows, labels;
    predictions_.clear();
    for (size_t n = 0; n + 1 < batch.cu_seqlens.size(); ++n)
      for (int32_t t = batch.cu_seqlens[n]; t < batch.cu_seqlens[n + 1]; ++t)
        if (batch.labels[t] >= 0) {
          rows.push_back(t);
          labels.push_back(batch.labels[t]);
          predictions_.push_back({static_cast<int>(n), 0, batch.labels[t]});
        }
    const Tensor logits = head_(rms_norm(gather_rows(h, Tensor::of(rows)), *norm_, o_.eps));
    const Tensor total = set_.context().coord.tp == 0 ? statistics.on_device() : Tensor();
    const CrossEntropyResult r = cross_entropy(logits, Tensor::of(labels), first_row_, set_.group(), total);
    argmax_ = r.argmax;
    return r.loss_sum;
  }

  HybridOptions o_;
  ParameterSet set_;
  bool recompute_;
  Parameter *embedding_ = nullptr, *norm_ = nullptr;
  std::vector<Layer> layers_;
  Linear head_;
  int64_t first_row_ = 0;
  std::vector<Prediction> predictions_;  // of the last forward, but for argmax
  Tensor argmax_;
};

}  // namespace

std::unique_ptr<LanguageStage> make_hybrid_stage(const HybridOptions& o, const ModuleContext& context,
                                                 int begin, int end, bool recompute) {
  return std::make_unique<HybridStage>(o, context, begin, end, recompute);
}

}  // namespace mimo
