// The hybrid language model: layers by a pattern string, each h += mixer(rms_norm(h)), over a token stream in
// which the rows of images come from the encoders.
//   h = Embed(tokens) with encoder rows in their places;  logits = rms_norm(h) W_head^T at the rows whose
//   label counts
// Source: Nemotron-H, 2025 (arXiv 2504.03624); Mamba-2 (arXiv 2405.21060).
#pragma once
#include <memory>
#include <vector>

#include "nn/mixers.h"
#include "parallel/stage.h"

namespace mimo {

// Per counted row of a batch: which sample of the batch it belongs to and whether the prediction was right.
struct Prediction {
  int sample;  // index into PackedBatch::samples
  int32_t argmax, label;
};

class LanguageStage : public Stage {
 public:
  // Predictions of the last forward (last stage only); waits for it.
  virtual std::vector<Prediction> predictions() const = 0;
};

// Layers [begin, end) of the pattern; the first stage embeds (its inputs are the encoders' rows by modality),
// the last returns the loss sum.
std::unique_ptr<LanguageStage> make_hybrid_stage(const HybridOptions&, const ModuleContext&, int begin,
                                                 int end, bool recompute);

}  // namespace mimo
