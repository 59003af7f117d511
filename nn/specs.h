// From configuration to model: the keys of every kind of module, and the ModelSpec they give.
#pragma once
#include "io/config.h"
#include "nn/mimo.h"

namespace mimo {

void declare_model_keys(Schema&);

// What the dataset fixes for the model.
struct DataSpec {
  int64_t vocab = 0;
  int channels = 1;
  std::vector<std::string> modalities;  // names, in the order of PackedBatch::items
};

// Modules of the configuration as a model: one hybrid language model, and one encoder for each modality of
// the data. Throws ConfigError naming the key.
ModelSpec model_spec(const Config&, const DataSpec&);

}  // namespace mimo
