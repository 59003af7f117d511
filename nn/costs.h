// What a model costs: floating point operations, parameters, bytes, messages. The only place that counts
// them; the planner, the cut of layers into stages and the memory report all ask here.
#pragma once
#include <vector>

#include "nn/mimo.h"
#include "parallel/rates.h"

namespace mimo {

// Forward operations of one layer per row, in a sequence of `length` rows. A causal product counts half.
double layer_flops(char symbol, const HybridOptions&, double length);
double vit_block_flops(const VitOptions&, double length);
double head_flops(const HybridOptions&);  // per counted row

// Forward operations of one stage for the given samples (whole, not divided by tp).
double stage_flops(const ModelSpec&, int module, int stage, int stages, const std::vector<SampleSizes>&);

// What a rank needs for one stage; where tp does not divide the vocabulary, the rank with the most rows.
struct StageMemory {
  int64_t parameters = 0;  // elements on this rank
  int64_t parameter_bytes =
      0;  // value; trainable: gradient, moments, and a master copy where values are bf16
  int64_t activation_bytes = 0;  // kept for backward while the given samples are in flight
};
StageMemory stage_memory(const ModelSpec&, int module, const Grid&, int stage,
                         const std::vector<SampleSizes>&);

// The all_reduces of a stage's tensor parallel ranks, of each rank, for one lane's samples of a wave; with
// train.recompute a layer's forward travels again in its backward.
struct TensorTraffic {
  Traffic forward, backward;
};
TensorTraffic tensor_traffic(const ModelSpec&, int module, const Grid&, int stage,
                             const std::vector<SampleSizes>&);

// The all_reduces of a rank's gradients over the lanes of its stage, once a step. Where tp does not divide
// the vocabulary, the last tensor parallel rank has most.
Traffic gradient_traffic(const ModelSpec&, int module, const Grid&, const Coord&);

}  // namespace mimo
