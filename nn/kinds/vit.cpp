// A RADIO-style vision transformer with its projector: packed images of any size (a video is as many images
// as it has frames), class tokens before each image, pre-norm blocks with full attention inside an image, no
// final norm; the projector maps to the language model's width.
//   x = patches W_e^T + pos(h, w);  [class tokens; x];  x += proj(attn(LN x));  x += fc2(act(fc1(LN x)))
//   features = projector(pixel_shuffle(x without class tokens))
// Source: Ranzinger et al., AM-RADIO, 2024 (arXiv 2312.06709), and C-RADIOv2's published weights for the
// names.
#include <algorithm>

#include "nn/activations.h"
#include "nn/layered_stage.h"
#include "nn/ops.h"
#include "nn/projector.h"
#include "tensor/error.h"
#include "tensor/text.h"

namespace mimo {
namespace {

struct Options {
  std::string modality = "image", resize = "keep";
  int64_t hidden = 0, ffn = 0;
  int layers = 0, heads = 0, patch = 0, class_tokens = 0;
  int grid = 0;  // side of the position table
  std::string activation = "gelu";
  double eps = 1e-6, position_std = 0.02;
  bool pixel_shuffle = true;  // 2 x 2 patches become one row of the token stream
  ProjectorOptions projector;

  int modality_index = 0;  // of the dataset
  Modality statistics;

  int64_t features() const { return (pixel_shuffle ? 4 : 1) * hidden; }
  // Rows of an image, or of a frame of a video, inside the encoder: its patches and class tokens.
  int64_t rows(const ItemSize& item) const { return int64_t{item.height} * item.width + class_tokens; }
};

const Fields<Options>& fields() {
  static const Fields<Options> all = [] {
    Fields<Options> f;
    f.add("modality", &Options::modality, "which of the dataset's modalities it encodes");
    f.add("hidden", &Options::hidden, "width").range(8, 1 << 16).required();
    f.add("layers", &Options::layers, "blocks").range(1, 1000).required();
    f.add("heads", &Options::heads, "attention heads").range(1, 1024).required();
    f.add("ffn", &Options::ffn, "inner width of the MLP").range(1, 1 << 20).required();
    f.add("patch", &Options::patch, "side of a patch in pixels").range(1, 256).required();
    f.add("resize", &Options::resize,
          "of items that patches do not divide: keep refuses them, round resizes to the nearest size that "
          "they divide")
        .one_of({"keep", "round"});
    f.add("class_tokens", &Options::class_tokens, "class and register tokens before each image")
        .range(0, 1024);
    f.add("grid", &Options::grid, "side of the position table in patches").range(1, 4096).required();
    f.add("activation", &Options::activation, "of the MLP")
        .one_of({"gelu", "gelu_tanh", "quick_gelu", "relu2", "silu"});
    f.add("position_std", &Options::position_std,
          "standard deviation of the initial position table and class tokens")
        .range(0, 1000)
        .fixing("");
    f.add("norm_eps", &Options::eps, "of the layer norms").above(0, 1);
    f.add("pixel_shuffle", &Options::pixel_shuffle, "join 2 x 2 patches into one row of the token stream");
    f.add(&Options::projector, projector_fields("projector", "projector_ffn"));
    return f;
  }();
  return all;
}

struct Norm {
  Parameter *weight, *bias;
  double eps;
  Tensor operator()(const Tensor& x) const { return layer_norm(x, *weight, *bias, eps); }
};

class Block {
 public:
  Block(ParameterSet& set, int index, const Options& o) : kind_(activation_kind(o.activation)) {
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

class VitStage : public LayeredStage {
 public:
  VitStage(const Options& o, const ModuleContext& context, int64_t out) : LayeredStage(context), o_(o) {
    const Parts parts = context.parts;
    if (holds(0)) {
      set_.begin_part(0);
      embed_ = replicated_linear(set_, "patch_generator.embedder",
                                 int64_t{o.statistics.channels} * o.patch * o.patch, o.hidden, false);
      positions_ = &set_.make("patch_generator.pos_embed", {int64_t{o.grid} * o.grid, o.hidden}, kReplicated,
                              normal(o.position_std));
      if (o.class_tokens > 0)
        class_tokens_ = &set_.make("patch_generator.cls_token.token", {o.class_tokens, o.hidden}, kReplicated,
                                   normal(o.position_std));
    }
    for (Parameter* p : {positions_, class_tokens_})
      if (p) p->decay = false;
    for (int part = std::max(parts.begin, 1); part < std::min(parts.end, o.layers + 1); ++part) {
      set_.begin_part(part);
      blocks_.emplace_back(part, Block(set_, part - 1, o));
    }
    if (!holds(o.layers + 1)) return;
    set_.begin_part(o.layers + 1);
    project_ = Projector(set_, "projector", o.projector, o.features(), out);
  }

  std::vector<Tensor> forward(std::span<const Tensor> inputs, const PackedBatch& batch, Step& step) override {
    const PackedItems& items = batch.items.at(static_cast<size_t>(o_.modality_index));
    const ImageGrids grids = image_grids(items.sizes);
    std::vector<int32_t> cu = grids.first;
    for (size_t i = 0; i < cu.size(); ++i) cu[i] += static_cast<int32_t>(i) * o_.class_tokens;
    const Sequences images = sequences(cu);

    Tensor x = holds(0) ? embed(items.patches, grids) : inputs[0];
    for (const auto& [part, block] : blocks_)
      x = run_part(part, x, step, [&block = block, images](const Tensor& in) { return block(in, images); });
    if (holds(o_.layers + 1)) x = project(step.enter(x, o_.layers + 1), grids);
    return {x};
  }

 private:
  Tensor embed(const Tensor& patches, const ImageGrids& grids) const {
    const Tensor here = to_device(patches, current_stream().device);
    const Tensor x = add_positions(embed_(here), *positions_, o_.grid, grids);
    return class_tokens_ ? prepend_class_tokens(x, *class_tokens_, grids) : x;
  }
  Tensor project(const Tensor& x, const ImageGrids& grids) const {
    const Tensor f = drop_class_tokens(x, o_.class_tokens, grids);
    return project_(o_.pixel_shuffle ? pixel_shuffle(f, grids) : f);
  }

  Options o_;
  Linear embed_;
  Parameter *positions_ = nullptr, *class_tokens_ = nullptr;
  std::vector<std::pair<int, Block>> blocks_;  // by part
  Projector project_;
};

class Vit : public Module {
 public:
  explicit Vit(const Options& o) : o_(o) {
    outputs_ = {
        {.name = "features", .part = o.layers + 1, .width = o.projector.kind == "none" ? o.features() : 0}};
  }
  int layers() const override { return o_.layers; }
  int64_t width() const override { return o_.hidden; }
  int64_t rows(const SampleSizes& s) const override {
    int64_t n = 0;
    for (const ItemSize& item : items_of(s)) n += item.time * o_.rows(item);
    return n;
  }
  std::optional<ItemReader> items() const override {
    ItemReader reader{o_.modality_index, image_patches(o_.statistics, o_.patch, o_.pixel_shuffle ? 2 : 1)};
    if (o_.resize == "round") reader.preprocessing.resize = Resize::round;
    reader.preprocessing.hint = "choose another patch size, or resize = \"round\", or turn pixel_shuffle off";
    return reader;
  }
  int modality() const override { return o_.modality_index; }
  Flow flow(int output) const override {
    return {.width = outputs_[static_cast<size_t>(output)].width,
            .modality = o_.modality_index,
            .rows = [this](const SampleSizes& s) {
              int64_t n = 0;
              for (const ItemSize& item : items_of(s)) n += item.rows;
              return n;
            }};
  }

  void check(int tp) const override {
    check_divides(name, "heads", o_.heads, tp);
    check_divides(name, "ffn", o_.ffn, tp);
    if (o_.projector.kind == "mlp") check_divides(name, "projector_ffn", o_.projector.ffn, tp);
  }
  PartCost cost(int part, const std::vector<SampleSizes>& samples, int tp, DType dtype) const override {
    int64_t patches = 0, inside = 0, features = 0;
    for (const SampleSizes& s : samples)
      for (const ItemSize& item : items_of(s))
        patches += item.patches(), inside += item.time * o_.rows(item), features += item.rows;
    const double d = static_cast<double>(o_.hidden), f = static_cast<double>(o_.ffn);
    PartCost c;
    if (part == 0) {
      c.flops = 2.0 * o_.statistics.channels * o_.patch * o_.patch * d * static_cast<double>(patches);
    } else if (part <= o_.layers) {
      for (const SampleSizes& s : samples)
        for (const ItemSize& item : items_of(s)) {
          const double length = static_cast<double>(o_.rows(item));
          c.flops += item.time * length * (8 * d * d + 4 * d * f + 4 * d * length);
        }
      // Two norms, q|k|v, the attention's result, the MLP before and after its activation.
      c.kept = static_cast<double>(inside) * (4 * d + (4 * d + 2 * f) / tp);
      for (int i = 0; i < 2; ++i)  // attention, MLP
        c.forward.add(inside * o_.hidden * size_of(dtype)),
            c.backward.add(inside * o_.hidden * size_of(dtype));
    } else {
      c = projector_cost(o_.projector, o_.features(), outputs_[0].width, features, tp, dtype);
    }
    return c;
  }
  std::unique_ptr<Stage> make_stage(const ModuleContext& context) const override {
    return std::make_unique<VitStage>(o_, context, outputs_[0].width);
  }

 private:
  const std::vector<ItemSize>& items_of(const SampleSizes& s) const {
    return s.items.at(static_cast<size_t>(o_.modality_index));
  }
  Options o_;
};

std::unique_ptr<Module> read(const Config::Section& s, const DataSpec& data) {
  Options o = fields().read(s);
  o.modality_index = data.modality(o.modality, s.place("modality"));
  o.statistics = data.modalities[static_cast<size_t>(o.modality_index)];
  if (o.hidden % o.heads != 0 || o.hidden / o.heads % 8 != 0 || o.hidden / o.heads > 256)
    throw ConfigError(s.place("hidden"),
                      "heads of a size that attention cannot take: expected hidden / heads to be a multiple "
                      "of 8, at most 256, found " +
                          std::to_string(o.hidden) + " / " + std::to_string(o.heads));
  return std::make_unique<Vit>(o);
}

const Registry<ModuleKind>::Entry entry{{.name = "vit",
                                         .help = "RADIO-style vision transformer with its projector",
                                         .declare = [](Keys& keys) { fields().declare(keys); },
                                         .read = read}};

}  // namespace
}  // namespace mimo
