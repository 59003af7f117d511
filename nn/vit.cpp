#include "nn/vit.h"

#include <cmath>

#include "nn/mixers.h"

namespace mimo {
namespace {

struct Norm {
  Parameter *weight, *bias;
  double eps;
  Tensor operator()(const Tensor& x) const { return layer_norm(x, *weight, *bias, eps); }
};

class Block {
 public:
  Block(ParameterSet& set, int index, const VitOptions& o) : kind_(activation_kind(o.activation)) {
    const std::string prefix = "blocks." + std::to_string(index);
    const auto norm = [&](const std::string& name) {
      return Norm{&set.make(name + ".weight", {o.hidden}, kReplicated, constant(1)),
                  &set.make(name + ".bias", {o.hidden}, kReplicated, constant(0)), o.eps};
    };
    const int heads = o.heads / set.tp();
    shape_ = {heads, heads, static_cast<int>(o.hidden / o.heads), false};
    norm1_ = norm(prefix + ".norm1");
    qkv_ = column_linear(set, prefix + ".attn.qkv", o.hidden, 3 * o.hidden, true,
                         {o.hidden, o.hidden, o.hidden});
    proj_ = row_linear(set, prefix + ".attn.proj", o.hidden, o.hidden, true, o.layers);
    norm2_ = norm(prefix + ".norm2");
    fc1_ = column_linear(set, prefix + ".mlp.fc1", o.hidden, o.ffn, true);
    fc2_ = row_linear(set, prefix + ".mlp.fc2", o.ffn, o.hidden, true, o.layers);
  }
  Tensor operator()(const Tensor& x, const Sequences& s) const {
    const Tensor h = add(x, proj_(attention(qkv_(norm1_(x)), shape_, s)));
    return add(h, fc2_(activation(fc1_(norm2_(h)), kind_)));
  }

 private:
  ActivationKind kind_;
  AttentionShape shape_;
  Norm norm1_, norm2_;
  Linear qkv_, proj_, fc1_, fc2_;
};

class VitStage : public Stage {
 public:
  VitStage(const VitOptions& o, const ModuleContext& context, int begin, int end, bool recompute)
      : o_(o), set_(context), first_(begin == 0), last_(end == o.layers), recompute_(recompute) {
    if (first_) {
      embed_ = replicated_linear(set_, "patch_generator.embedder", int64_t{o.channels} * o.patch * o.patch,
                                 o.hidden, false);
      positions_ = &set_.make("patch_generator.pos_embed", {int64_t{o.grid} * o.grid, o.hidden}, kReplicated,
                              normal(o.position_std));
      if (o.class_tokens > 0)
        class_tokens_ = &set_.make("patch_generator.cls_token.token", {o.class_tokens, o.hidden}, kReplicated,
                                   normal(o.position_std));
    }
    for (Parameter* p : {positions_, class_tokens_})
      if (p) p->decay = false;
    for (int i = begin; i < end; ++i) blocks_.emplace_back(set_, i, o);
    if (!last_) return;
    if (o.projector == "affine") {
      up_ = replicated_linear(set_, "projector", o.features(), o.out, false);
    } else {
      norm_ = &set_.make("projector.norm.weight", {o.features()}, kReplicated, constant(1));
      up_ = column_linear(set_, "projector.linear1", o.features(), o.projector_ffn, false);
      down_ = row_linear(set_, "projector.linear2", o.projector_ffn, o.out, false);
    }
  }

  Tensor forward(std::span<const Tensor> inputs, const PackedBatch& batch, Statistics&) override {
    const PackedItems& items = batch.items.at(o_.modality);
    const ImageGrids grids = image_grids(items.sizes, items.cu_items);
    std::vector<int32_t> cu = items.cu_items;
    for (size_t i = 0; i < cu.size(); ++i) cu[i] += static_cast<int32_t>(i) * o_.class_tokens;
    const Sequences images = sequences(cu);

    Tensor x = first_ ? embed(items.patches, grids) : inputs[0];
    for (const Block& block : blocks_)
      x = recompute_ ? mimo::recompute(
                           [&block, images](const std::vector<Tensor>& in) { return block(in[0], images); },
                           {x}, set_.context().trainable)
                     : block(x, images);
    return last_ ? project(x, grids) : x;
  }
  std::vector<Parameter*> parameters() override { return set_.all(); }

 private:
  Tensor embed(const Tensor& patches, const ImageGrids& grids) const {
    const Tensor here = to_device(patches, current_stream().device);
    const Tensor x = add_positions(embed_(here), *positions_, o_.grid, grids);
    return class_tokens_ ? prepend_class_tokens(x, *class_tokens_, grids) : x;
  }
  Tensor project(const Tensor& x, const ImageGrids& grids) const {
    Tensor f = drop_class_tokens(x, o_.class_tokens, grids);
    if (o_.pixel_shuffle) f = mimo::pixel_shuffle(f, grids);
    return norm_ ? down_(activation(up_(rms_norm(f, *norm_, 1e-5)), ActivationKind::relu2)) : up_(f);
  }

  VitOptions o_;
  ParameterSet set_;
  bool first_, last_, recompute_;
  Linear embed_, up_, down_;
  Parameter *positions_ = nullptr, *class_tokens_ = nullptr, *norm_ = nullptr;
  std::vector<Block> blocks_;
};

}  // namespace

int64_t vit_rows(const VitOptions& o, const ItemSize& item) {
  return int64_t{item.height} * item.width + o.class_tokens;
}

std::unique_ptr<Stage> make_vit_stage(const VitOptions& o, const ModuleContext& context, int begin, int end,
                                      bool recompute) {
  return std::make_unique<VitStage>(o, context, begin, end, recompute);
}

}  // namespace mimo
