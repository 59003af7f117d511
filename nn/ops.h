// Autograd over the kernels: each op computes on data, and records what its backward needs and nothing else.
// Shapes: T rows (tokens or patches), d columns. Gradients of parameters go straight to Parameter::grad.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/activation.h"
#include "parallel/communicator.h"
#include "tensor/autograd.h"
#include "tensor/parameter.h"

namespace mimo {

// Packed sequences: sequence s holds rows [cu[s], cu[s + 1]).
struct Sequences {
  Tensor cu;  // i32 [count + 1]
  int count = 0;
  int64_t tokens = 0;
  Tensor positions;  // i32 [tokens], where rotary embedding is used
};
Sequences sequences(const std::vector<int32_t>& cu, const std::vector<int32_t>& positions = {});

// Images as grids of patches, packed.
struct ImageGrids {
  Tensor sizes;  // i32 [images, 2]: height, width
  Tensor cu;     // i32 [images + 1], first patch row
  int images = 0;
  int64_t patches = 0;
  std::vector<int32_t> first;  // cu on the host
};
// From PackedItems::sizes: every frame of an item is an image.
ImageGrids image_grids(const std::vector<int32_t>& sizes);

Tensor linear(const Tensor& x, Parameter& weight, Parameter* bias = nullptr);  // x W^T + b, W [out, in]
Tensor add_bias(const Tensor& x, Parameter& bias);
Tensor add(const Tensor& a, const Tensor& b);
Tensor rms_norm(const Tensor& x, Parameter& weight, double eps);
Tensor layer_norm(const Tensor& x, Parameter& weight, Parameter& bias, double eps);
Tensor activation(const Tensor& x, ActivationKind kind);
Tensor swiglu(const Tensor& x);  // [T, 2 f] -> [T, f]

struct AttentionShape {
  int heads, kv_heads, head_dim;
  bool causal;
  double rope_theta = 0;  // 0: no rotary embedding
};
// qkv [T, (heads + 2 kv_heads) head_dim], columns q | k | v -> [T, heads head_dim]; scale 1 / sqrt(head_dim).
Tensor attention(const Tensor& qkv, const AttentionShape&, const Sequences&);

struct Mamba2Shape {
  int heads, head_dim, groups, state, conv_width, chunk;
  int64_t inner() const { return static_cast<int64_t>(heads) * head_dim; }
  int64_t conv() const { return inner() + 2L * groups * state; }
  int64_t projected() const { return inner() + conv() + heads; }
};
struct Mamba2Parameters {
  Parameter *conv_weight, *conv_bias, *dt_bias, *a_log, *d, *norm_weight;
};
// zxbcdt [T, projected], columns z | x | B | C | dt -> gated grouped norm of the scan, [T, inner].
Tensor mamba2(const Tensor& zxbcdt, const Mamba2Shape&, const Mamba2Parameters&, double eps,
              const Sequences&);

// SiLU of the causal depthwise convolution.
Tensor causal_conv(const Tensor& x, Parameter& weight, Parameter& bias, const Sequences&);
// Mamba-1's scan, gated by z; delta is raw, delta_bias joins it inside.
Tensor selective_scan(const Tensor& u, const Tensor& delta, const Tensor& b, const Tensor& c, const Tensor& z,
                      Parameter& delta_bias, Parameter& a_log, Parameter& d, const Sequences&);

// Rows of the vocabulary slice [first, first + weight rows) held here; other ids give zero rows.
Tensor embedding(const Tensor& ids, Parameter& weight, int64_t first);
// Writes features over the given rows of stream, in its own storage (stream must be a fresh result that holds
// zeros there).
Tensor place_rows(const Tensor& stream, const Tensor& features, const Tensor& rows);
// stream with the features added to the given rows (distinct ones).
Tensor add_rows(const Tensor& stream, const Tensor& features, const Tensor& rows);
Tensor gather_rows(const Tensor& x, const Tensor& rows);

Tensor add_positions(const Tensor& x, Parameter& table, int grid, const ImageGrids&);
Tensor pixel_shuffle(const Tensor& x, const ImageGrids&);
// Puts the class tokens [k, d] before the patches of every image: image i fills rows [cu[i] + i k, cu[i + 1]
// + (i + 1) k).
Tensor prepend_class_tokens(const Tensor& x, Parameter& tokens, const ImageGrids&);
Tensor drop_class_tokens(const Tensor& x, int count, const ImageGrids&);

struct CrossEntropyResult {
  Tensor loss_sum;  // [1], acc dtype
  Tensor argmax;    // i32 [rows], over the whole vocabulary
  Tensor
      sums;  // [2, rows]: of exp(z - max), and z_label - max; a row's loss is the first's ln less the other
};
// Sum over rows of -ln softmax(logits)_label with the vocabulary split over `group` (null: whole here); this
// rank holds columns from `first`. logits are used up: their storage becomes their gradient. total, f64 [1]:
// the sum is added to it as well.
CrossEntropyResult cross_entropy(const Tensor& logits, const Tensor& labels, int64_t first,
                                 Communicator* group, const Tensor& total = {});

}  // namespace mimo
