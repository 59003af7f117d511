#include "nn/specs.h"

#include <algorithm>

#include "tensor/text.h"

namespace mimo {
namespace {

int to_int(const Config::Section& s, std::string_view key) { return static_cast<int>(s.get<int64_t>(key)); }

void refuse(const std::string& place, const std::string& what, const std::string& hint = {}) {
  throw ConfigError(place, what, hint);
}

VitOptions vit_options(const Config::Section& s, const DataSpec& data, int64_t out) {
  VitOptions o;
  const std::string& modality = s.get<std::string>("modality");
  const auto found = std::find(data.modalities.begin(), data.modalities.end(), modality);
  if (found == data.modalities.end())
    refuse(s.place("modality"), "no such modality in the dataset: expected one of " +
                                    joined(data.modalities) + ", found " + modality);
  o.modality = static_cast<int>(found - data.modalities.begin());
  o.hidden = s.get<int64_t>("hidden");
  o.layers = to_int(s, "layers");
  o.heads = to_int(s, "heads");
  o.ffn = s.get<int64_t>("ffn");
  o.channels = data.channels;
  o.patch = to_int(s, "patch");
  o.class_tokens = to_int(s, "class_tokens");
  o.grid = to_int(s, "grid");
  o.activation = s.get<std::string>("activation");
  o.eps = s.get<double>("norm_eps");
  o.position_std = s.get<double>("position_std");
  o.pixel_shuffle = s.get<bool>("pixel_shuffle");
  o.projector = s.get<std::string>("projector");
  o.projector_ffn = s.get<int64_t>("projector_ffn");
  o.out = out;
  if (o.hidden % o.heads != 0 || o.hidden / o.heads % 8 != 0 || o.hidden / o.heads > 256)
    refuse(s.place("hidden"),
           "heads of a size that attention cannot take: expected hidden / heads to be a multiple of 8, at "
           "most 256, found " +
               std::to_string(o.hidden) + " / " + std::to_string(o.heads));
  return o;
}

HybridOptions hybrid_options(const Config::Section& s, const DataSpec& data) {
  HybridOptions o;
  o.pattern = s.get<std::string>("pattern");
  o.hidden = s.get<int64_t>("hidden");
  o.heads = to_int(s, "heads");
  o.kv_heads = to_int(s, "kv_heads");
  o.head_dim = to_int(s, "head_dim");
  o.rope_theta = s.get<double>("rope_theta");
  o.ffn = s.get<int64_t>("ffn");
  o.activation = s.get<std::string>("activation");
  o.ssm_heads = to_int(s, "ssm_heads");
  o.ssm_head_dim = to_int(s, "ssm_head_dim");
  o.ssm_groups = to_int(s, "ssm_groups");
  o.ssm_state = to_int(s, "ssm_state");
  o.ssm_chunk = to_int(s, "ssm_chunk");
  o.conv_width = to_int(s, "conv_width");
  o.scan_inner = to_int(s, "scan_inner");
  o.scan_state = to_int(s, "scan_state");
  o.scan_dt_rank = to_int(s, "scan_dt_rank");
  o.eps = s.get<double>("norm_eps");
  o.embedding_std = s.get<double>("embedding_std");
  o.vocab = data.vocab;
  const size_t odd = o.pattern.find_first_not_of("MS*-|");
  if (odd != std::string::npos)
    refuse(s.place("pattern"),
           std::string("unknown layer: expected symbols of M S * - and |, found '") + o.pattern[odd] + "'");
  constexpr size_t kLayers = 1000;  // as of an encoder
  if (const size_t layers = layer_symbols(o.pattern).size(); layers < 1 || layers > kLayers)
    refuse(s.place("pattern"), layers < 1 ? "no layer in the pattern"
                                          : "too many layers: expected at most " + std::to_string(kLayers) +
                                                ", found " + std::to_string(layers));
  if (o.head_dim % 8 != 0 || o.head_dim > 256)
    refuse(s.place("head_dim"), "expected a multiple of 8, at most 256, found " + std::to_string(o.head_dim));
  if (o.heads % o.kv_heads != 0)
    refuse(s.place("kv_heads"), "expected a divisor of heads " + std::to_string(o.heads) + ", found " +
                                    std::to_string(o.kv_heads));
  if (o.ssm_heads % o.ssm_groups != 0)
    refuse(s.place("ssm_groups"), "expected a divisor of ssm_heads " + std::to_string(o.ssm_heads) +
                                      ", found " + std::to_string(o.ssm_groups));
  return o;
}

}  // namespace

void declare_model_keys(Schema& schema) {
  constexpr double kWidth = 1 << 16, kInner = 1 << 20;  // an int holds products of heads and their sizes
  Keys& every = schema.every_kind();
  every.boolean("freeze", "keep the module's weights as they are").fallback(false);
  every.real("init_std", "standard deviation of initial linear weights; 0: 1 / sqrt(inputs)")
      .fallback(0.02)
      .range(0, 1000)
      .fixing("");  // as other initial values: weights that were trained do not change

  Keys& vit = schema.kind("vit", "RADIO-style vision transformer with its projector");
  vit.string("modality", "which of the dataset's modalities it encodes").fallback(std::string("image"));
  vit.integer("hidden", "width").range(8, kWidth);
  vit.integer("layers", "blocks").range(1, 1000);
  vit.integer("heads", "attention heads").range(1, 1024);
  vit.integer("ffn", "inner width of the MLP").range(1, kInner);
  vit.integer("patch", "side of a patch in pixels").range(1, 256);
  vit.integer("class_tokens", "class and register tokens before each image")
      .fallback(int64_t{0})
      .range(0, 1024);
  vit.integer("grid", "side of the position table in patches").range(1, 4096);
  vit.string("activation", "of the MLP")
      .fallback(std::string("gelu"))
      .one_of({"gelu", "gelu_tanh", "quick_gelu", "relu2", "silu"});
  vit.real("position_std", "standard deviation of the initial position table and class tokens")
      .fallback(0.02)
      .range(0, 1000)
      .fixing("");
  vit.real("norm_eps", "of the layer norms").fallback(1e-6).above(0, 1);
  vit.boolean("pixel_shuffle", "join 2 x 2 patches into one row of the token stream").fallback(true);
  vit.string("projector", "affine: one linear layer; mlp: norm, linear, relu2, linear")
      .fallback(std::string("mlp"))
      .one_of({"affine", "mlp"});
  vit.integer("projector_ffn", "inner width of the mlp projector").fallback(int64_t{256}).range(1, kInner);

  Keys& lm = schema.kind("hybrid", "hybrid Mamba / attention language model");
  lm.string("pattern", "layers: M Mamba-2, S Mamba-1, * attention, - MLP, | stage boundary");
  lm.integer("hidden", "width").range(8, kWidth);
  lm.integer("heads", "attention: query heads").fallback(int64_t{4}).range(1, 1024);
  lm.integer("kv_heads", "attention: key-value heads").fallback(int64_t{4}).range(1, 1024);
  lm.integer("head_dim", "attention: size of a head").fallback(int64_t{32}).range(8, 256);
  lm.real("rope_theta", "attention: base of the rotary embedding, 0 for none")
      .fallback(0.0)
      .range(1, 1e12)
      .or_zero();
  lm.integer("ffn", "MLP: inner width").fallback(int64_t{256}).range(1, kInner);
  lm.string("activation", "MLP: activation; swiglu is gated")
      .fallback(std::string("relu2"))
      .one_of({"relu2", "gelu", "gelu_tanh", "silu", "swiglu"});
  lm.integer("ssm_heads", "Mamba-2: heads").fallback(int64_t{8}).range(1, 4096);
  lm.integer("ssm_head_dim", "Mamba-2: size of a head").fallback(int64_t{32}).range(1, 512);
  lm.integer("ssm_groups", "Mamba-2: groups that share B and C").fallback(int64_t{4}).range(1, 1024);
  lm.integer("ssm_state", "Mamba-2: size of the state").fallback(int64_t{32}).range(1, 1024);
  lm.integer("ssm_chunk", "Mamba-2: tokens in a chunk of the scan")
      .fallback(int64_t{64})
      .range(1, 1024)
      .fixing("");  // sums in another order
  lm.integer("conv_width", "Mamba: taps of the causal convolution").fallback(int64_t{4}).range(2, 8);
  lm.integer("scan_inner", "Mamba-1: channels").fallback(int64_t{256}).range(1, kInner);
  lm.integer("scan_state", "Mamba-1: state of a channel").fallback(int64_t{16}).range(1, 1024);
  lm.integer("scan_dt_rank", "Mamba-1: rank of the time step projection")
      .fallback(int64_t{8})
      .range(1, kWidth);
  lm.real("embedding_std", "standard deviation of the initial token embedding")
      .fallback(0.02)
      .range(0, 1000)
      .fixing("");
  lm.real("norm_eps", "of the RMS norms").fallback(1e-5).above(0, 1);
}

ModelSpec model_spec(const Config& config, const DataSpec& data) {
  ModelSpec model;
  model.dtype = config.get<std::string>("train.dtype") == "bf16" ? DType::bf16 : DType::f32;
  model.seed = static_cast<uint64_t>(config.get<int64_t>("train.seed"));
  model.recompute = config.get<bool>("train.recompute");

  std::string language;
  for (const std::string& name : config.modules())
    if (config.module(name).get<std::string>("kind") == "hybrid") {
      if (!language.empty())
        refuse(config.module(name).place("kind"),
               "a second language model: expected one module of kind hybrid, found " + language + " and " +
                   name);
      language = name;
    }
  if (language.empty())
    refuse("module", "no language model: expected one module of kind hybrid, found none",
           "add [module.language] with kind = \"hybrid\"");

  const auto common = [&](ModuleSpec& m) {
    m.trainable = !config.module(m.name).get<bool>("freeze");
    m.init_std = config.module(m.name).get<double>("init_std");
  };
  ModuleSpec lm;
  lm.kind = ModuleSpec::Kind::hybrid;
  lm.name = language;
  lm.hybrid = hybrid_options(config.module(language), data);
  common(lm);
  for (const std::string& name : config.modules()) {
    if (name == language) continue;
    ModuleSpec m;
    m.kind = ModuleSpec::Kind::vit;
    m.name = name;
    m.vit = vit_options(config.module(name), data, lm.hybrid.hidden);
    common(m);
    model.modules.push_back(m);
  }
  std::sort(model.modules.begin(), model.modules.end(),
            [](const ModuleSpec& a, const ModuleSpec& b) { return a.vit.modality < b.vit.modality; });
  for (size_t i = 0; i < data.modalities.size(); ++i)
    if (i >= model.modules.size() || model.modules[i].vit.modality != static_cast<int>(i))
      refuse("module",
             "no encoder, or more than one, for modality " + data.modalities[i] + ": expected exactly one",
             "add a [module.NAME] with modality = \"" + data.modalities[i] + "\"");
  if (model.modules.size() != data.modalities.size())
    refuse("module", "expected one encoder for each of the dataset's " +
                         std::to_string(data.modalities.size()) + " modalities, found " +
                         std::to_string(model.modules.size()));
  model.modules.push_back(lm);
  return model;
}

}  // namespace mimo
