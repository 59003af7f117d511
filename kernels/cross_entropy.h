// Vocab-parallel cross entropy: this rank holds logit columns [first, first + cols) of every row. Three
// steps, with an all-reduce between them (max over ranks of `max`; then sum over ranks of the pair `sum`,
// `target`):
//   CrossEntropyMax: max_t = max_v z_tv, arg_t = first + the lowest argmax (for accuracy)
//   CrossEntropySum: sum_t = sum_v exp(z_tv - max_t), target_t = z_ty - max_t if label y_t is held here, else
//   0 CrossEntropyGrad: loss_t = ln sum_t - target_t, z <- (exp(z - max_t) / sum_t - [v = y_t]) dloss, in
//   place;
// rows with label < 0 are not counted: loss 0, gradient 0. cols = 0 gives max = -inf, sum = 0.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct CrossEntropyMax {
  int64_t rows;
  int64_t first, cols;
  const T* logits;  // [rows, cols]
  int64_t ld;
  acc_t<T>* max;  // [rows]
  int32_t* arg;   // [rows] or null
};

template <class T>
struct CrossEntropySum {
  int64_t rows;
  int64_t first, cols;
  const T* logits;
  int64_t ld;
  const int32_t* labels;  // [rows]
  const acc_t<T>* max;
  acc_t<T>*sum, *target;  // [rows]
};

template <class T>
struct CrossEntropyGrad {
  int64_t rows;
  int64_t first, cols;
  T* logits;  // in: logits, out: their gradient
  int64_t ld;
  const int32_t* labels;
  const acc_t<T>*max, *sum, *target;
  acc_t<T> dloss;
  acc_t<T>* loss;  // [rows] or null
};

MIMO_CONTRACT(CrossEntropyMax);
MIMO_CONTRACT(CrossEntropySum);
MIMO_CONTRACT(CrossEntropyGrad);

}  // namespace mimo
