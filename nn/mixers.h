// The mixers of a hybrid layer: every symbol of the pattern is one residual layer h += mixer(rms_norm(h)).
//   M Mamba-2    S Mamba-1    * causal attention    - MLP
// Parameter names are those of the published weights (Nemotron-H, Mamba, RADIO in vit.h) without their
// wrapper prefixes. Fused here, separate there: qkv_proj = q_proj | k_proj | v_proj, gate_up_proj = gate_proj
// | up_proj. The projector's norm, linear1, linear2 are mlp1.0, .1, .3 of Nemotron-Nano-VL.
#pragma once
#include <memory>
#include <string>

#include "nn/linear.h"
#include "nn/ops.h"

namespace mimo {

struct HybridOptions {
  std::string pattern;  // of M S * - and | (stage boundary)
  int64_t hidden = 0;
  // attention
  int heads = 0, kv_heads = 0, head_dim = 0;
  double rope_theta = 0;
  // MLP
  int64_t ffn = 0;
  std::string activation = "relu2";  // or gelu, gelu_tanh, silu; swiglu is gated
  // Mamba-2
  int ssm_heads = 0, ssm_head_dim = 0, ssm_groups = 0, ssm_state = 0, ssm_chunk = 0, conv_width = 4;
  // Mamba-1
  int scan_inner = 0, scan_state = 0, scan_dt_rank = 0;
  double eps = 1e-5;
  double embedding_std = 0.02;  // initial token embedding
  int64_t vocab = 0;
};

class Mixer {
 public:
  virtual ~Mixer() = default;
  virtual Tensor operator()(const Tensor& x, const Sequences&) const = 0;
};

// Layers in the pattern, without the boundaries.
std::string layer_symbols(const std::string& pattern);

// The mixer of a symbol, with parameters named PREFIX.* ("layers.3.mixer").
std::unique_ptr<Mixer> make_mixer(char symbol, ParameterSet&, const std::string& prefix,
                                  const HybridOptions&);

// What each of tp ranks has of a Mamba-2 layer.
Mamba2Shape mamba2_shape(const HybridOptions&, int tp = 1);

ActivationKind activation_kind(const std::string& name);

}  // namespace mimo
