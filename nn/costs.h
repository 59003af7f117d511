// What a model costs: floating point operations, parameters, bytes, messages: the parts' own figures
// (nn/module.h) added up for stages. The planner and the memory report ask here.
#pragma once
#include <vector>

#include "nn/mimo.h"
#include "parallel/rates.h"

namespace mimo {

// Operations of one stage for the given samples (whole, not divided by tp). Backward: of each part as many
// for its trained weights, and as many for its input where a gradient passes; and forward again where it is
// recomputed.
struct StageFlops {
  double forward = 0, backward = 0;
};
StageFlops stage_flops(const ModelSpec&, int module, int stage, int stages, const std::vector<SampleSizes>&);

// What a rank needs for one stage; where tp does not divide the vocabulary, the rank with the most rows.
struct StageMemory {
  int64_t parameters = 0, trainable = 0;  // elements on this rank
  // Of values; and of what is trained: gradient, moments, and a master copy where values are bf16.
  int64_t parameter_bytes = 0;
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

// How a rank's gradients of a stage travel over its lanes, once a step: parts from the last to the first, as
// backward completes them, in buckets of at least model.bucket_bytes (the last may be smaller). All ranks of
// a stage have the same buckets. Where tp does not divide the vocabulary, the last tensor parallel rank has
// most.
struct GradientBucket {
  Parts parts;
  double ready = 1;  // share of the backward of these samples that has passed when it is complete
  Traffic traffic;   // its all_reduces
};
std::vector<GradientBucket> gradient_buckets(const ModelSpec&, int module, const Grid&, int stage,
                                             const Coord&, const std::vector<SampleSizes>&);

}  // namespace mimo
