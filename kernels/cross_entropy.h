// Vocab-parallel cross entropy: this rank holds logit columns [first, first + cols) of every row. What one
// rank alone needs are steps 1, 3, 4 and 5:
//   1 CrossEntropyMax   max_t = max_v z_tv, arg_t = first + the lowest argmax (for accuracy)
//                       all-reduce: the maximum of max over ranks
//   2 CrossEntropyArg   arg_t = INT32_MAX where this rank does not hold the maximum
//                       all-reduce: the minimum of arg, the lowest index of the global maximum
//   3 CrossEntropySum   sum_t = sum_v exp(z_tv - max_t)
//                       target_t = z_ty - max_t if label y_t is held here, else 0
//                       all-reduce: the sums of sum and target
//   4 CrossEntropyLoss  value = sum_t (ln sum_t - target_t), also added to a result in double
//   5 CrossEntropyGrad  z <- (exp(z - max_t) / sum_t - [v = y_t]) dloss, in place
//                       loss_t = ln sum_t - target_t
// Rows with label < 0 are not counted: loss 0, gradient 0. cols = 0 gives max = -inf, sum = 0. No step is
// read back by the host.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct CrossEntropyMax {
  int64_t rows;
  int64_t first, cols;
  Rows<const T> logits;    // [rows, cols]
  acc_t<T>* max;           // [rows]
  int32_t* arg = nullptr;  // [rows]
};

// In place on arg: where here_t != max_t it becomes INT32_MAX. A row whose maximum is NaN keeps its arg.
template <class T>
struct CrossEntropyArg {
  int64_t rows;
  const acc_t<T>*here, *max;  // [rows], before and after the all-reduce
  int32_t* arg;               // [rows]
};

template <class T>
struct CrossEntropySum {
  int64_t rows;
  int64_t first, cols;
  Rows<const T> logits;
  const int32_t* labels;  // [rows]
  const acc_t<T>* max;
  acc_t<T>*sum, *target;  // [rows]
};

// Terms and sums are double, in a fixed order.
template <class T>
struct CrossEntropyLoss {
  int64_t rows;
  const int32_t* labels;
  const acc_t<T>*sum, *target;  // [rows]
  double* result;               // [1], added to
  acc_t<T>* value;              // [1], overwritten: what this call adds, rounded
};

template <class T>
struct CrossEntropyGrad {
  int64_t rows;
  int64_t first, cols;
  Rows<T> logits;  // in: logits, out: their gradient
  const int32_t* labels;
  const acc_t<T>*max, *sum, *target;
  const acc_t<T>* dloss;     // [1]
  acc_t<T>* loss = nullptr;  // [rows]
};

MIMO_CONTRACT(CrossEntropyMax);
MIMO_CONTRACT(CrossEntropyArg);
MIMO_CONTRACT(CrossEntropySum);
MIMO_CONTRACT(CrossEntropyLoss);
MIMO_CONTRACT(CrossEntropyGrad);

}  // namespace mimo
