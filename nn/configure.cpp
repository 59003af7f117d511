// From configuration to model.
#include <algorithm>

#include "nn/mimo.h"
#include "tensor/error.h"

namespace mimo {
namespace {

std::vector<EdgeRequest> requests(const ModelSpec& model, const Config& config) {
  std::vector<EdgeRequest> out;
  for (const auto& [from, list] : config.edges())
    for (const std::string& to : list) out.push_back({from, to, config.place("edges." + from)});
  if (!out.empty()) return out;
  const std::string& predictor = model[model.predictor()].name;
  for (const std::string& name : model.names())
    if (name != predictor) out.push_back({name, predictor, "edges"});
  return out;
}

void check_connected(const ModelSpec& model, const DataSpec& data) {
  std::vector<bool> feeds(model.modules.size()), read(data.modalities.size());
  for (const ModelSpec::Edge& e : model.edges) feeds[static_cast<size_t>(e.src)] = true;
  for (int m = 0; m < model.size(); ++m) {
    if (!feeds[static_cast<size_t>(m)] && m != model.predictor())
      throw ConfigError("edges", model[m].name + " feeds no module: expected a line edges." + model[m].name,
                        model.edges.empty() ? "" : "with an [edges] section every edge stands there");
  }
  for (const InputPort& in : model[model.predictor()].inputs())
    if (in.part == 0 && in.flow.modality >= 0) read[static_cast<size_t>(in.flow.modality)] = true;
  for (size_t i = 0; i < read.size(); ++i)
    if (!read[i])
      throw ConfigError("module",
                        "no encoder for modality " + data.modalities[i].name + ": expected one that feeds " +
                            model[model.predictor()].name,
                        "add a [module.NAME] with modality = \"" + data.modalities[i].name + "\"");
}

// Encoders of the same modality see the same rows.
void check_readers(const ModelSpec& model, const DataSpec& data) {
  for (int a = 0; a < model.size(); ++a)
    for (int b = 0; b < a; ++b) {
      const auto x = model[a].items(), y = model[b].items();
      if (x && y && x->modality == y->modality && !(x->preprocessing == y->preprocessing))
        throw ConfigError("module." + model[a].name,
                          "items of modality " + data.modalities[static_cast<size_t>(x->modality)].name +
                              " are read in another way than for " + model[b].name +
                              ": expected the same decoder, resize and patches");
    }
}

void check_freezing(const ModelSpec& model) {
  std::vector<std::string> names;
  for (int m = 0; m < model.size(); ++m) {
    const std::unique_ptr<Stage> whole = describe_stage(model, m, {}, 0, {});
    for (const Parameter* p : whole->parameters()) names.push_back(p->name);
  }
  const auto check = [&](const std::string& key, const std::vector<std::string>& patterns) {
    for (const std::string& pattern : patterns) {
      const Freezing one{{pattern}, {}};
      if (std::all_of(names.begin(), names.end(), [&](const auto& n) { return one.trainable(n); }))
        throw ConfigError(key, "no parameter has such a name: found \"" + pattern + '"',
                          "names are like " + names.front() + "; * stands for any text");
    }
  };
  check("train.freeze", model.freezing.freeze);
  check("train.unfreeze", model.freezing.unfreeze);
}

}  // namespace

void declare_model_keys(Schema& schema) {
  schema.every_kind()
      .real("init_std", "standard deviation of initial linear weights; 0: 1 / sqrt(inputs)")
      .fallback(0.02)
      .range(0, 1000)
      .fixing("");  // as other initial values: weights that were trained do not change
  for (const auto& [name, kind] : Registry<ModuleKind>::all()) kind.declare(schema.kind(name, kind.help));
}

ModelSpec model_spec(const Config& config, const DataSpec& data) {
  ModelSpec model;
  model.dtype = config.get<std::string>("train.dtype") == "bf16" ? DType::bf16 : DType::f32;
  model.seed = static_cast<uint64_t>(config.get<int64_t>("train.seed"));
  model.recompute = config.get<bool>("train.recompute");
  model.bucket_bytes = config.get<int64_t>("train.bucket_bytes");
  model.freezing = {config.get<std::vector<std::string>>("train.freeze"),
                    config.get<std::vector<std::string>>("train.unfreeze")};
  std::string predictor;
  for (const std::string& name : config.modules()) {
    const Config::Section section = config.module(name);
    model.modules.push_back(
        Registry<ModuleKind>::find(section.get<std::string>("kind"))->read(section, data));
    Module& m = *model.modules.back();
    m.name = name;
    m.init_std = section.get<double>("init_std");
    if (!m.predicts()) continue;
    if (!predictor.empty())
      throw ConfigError(section.place("kind"),
                        "a second language model: expected one, found " + predictor + " and " + name);
    predictor = name;
  }
  if (predictor.empty())
    throw ConfigError("module", "no language model: expected one module of kind hybrid, found none",
                      "add [module.language] with kind = \"hybrid\"");
  connect(model, requests(model, config));
  check_connected(model, data);
  check_readers(model, data);
  check_freezing(model);
  settle_backward(model);
  return model;
}

}  // namespace mimo
