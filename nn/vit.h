// A RADIO-style vision transformer with its projector: packed images of any size, class tokens before each
// image, pre-norm blocks with full attention inside an image, no final norm; the projector maps to the
// language model's width.
//   x = patches W_e^T + pos(h, w);  [class tokens; x];  x += proj(attn(LN x));  x += fc2(act(fc1(LN x)))
//   features = projector(pixel_shuffle(x without class tokens))
// Source: Ranzinger et al., AM-RADIO, 2024 (arXiv 2312.06709), and C-RADIOv2's published weights for the
// names.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "nn/linear.h"
#include "nn/ops.h"
#include "parallel/stage.h"

namespace mimo {

struct VitOptions {
  int modality = 0;  // which of the batch's items
  int64_t hidden = 0, ffn = 0;
  int layers = 0, heads = 0;
  int channels = 1, patch = 0;
  int class_tokens = 0, grid = 0;  // side of the position table
  std::string activation = "gelu";
  double eps = 1e-6;
  double position_std = 0.02;     // initial position table and class tokens
  bool pixel_shuffle = true;      // 2 x 2 patches become one row of the token stream
  std::string projector = "mlp";  // affine: one linear layer; mlp: RMSNorm, linear, relu2, linear
  int64_t projector_ffn = 0;
  int64_t out = 0;  // the language model's width

  int64_t features() const { return (pixel_shuffle ? 4 : 1) * hidden; }
};

// Rows of an image inside the encoder: its patches and class tokens.
int64_t vit_rows(const VitOptions&, const ItemSize&);

// Layers [begin, end); the first stage embeds patches, the last one projects.
std::unique_ptr<Stage> make_vit_stage(const VitOptions&, const ModuleContext&, int begin, int end,
                                      bool recompute);

}  // namespace mimo
