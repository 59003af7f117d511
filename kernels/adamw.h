// AdamW over many tensors at once. Per element, with g = grad * *scale (1 / counted tokens times the clip
// factor):
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  mhat = m / (1 - b1^t),  vhat = v / (1 - b2^t)
//   p = p - lr (mhat / (sqrt(vhat) + eps) + wd p)
// on the master weight (acc_t<T>), then rounded to the parameter. All that changes from step to step is read
// from `state`, so a step can be captured and replayed. Source: Loshchilov and Hutter, 2017 (arXiv
// 1711.05101).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

struct AdamState {  // lives in device memory
  double lr, beta1, beta2, eps, weight_decay;
  double scale;  // multiplies every gradient
  int64_t t;     // number of this update, from 1
};

template <class T>
struct AdamTensor {
  int64_t n;
  T* param;
  acc_t<T>* master;  // == param where T is acc_t<T>
  const acc_t<T>* grad;
  acc_t<T>*m, *v;
  double decay = 1;  // multiplies weight_decay: 0 or 1
  double lr = 1;     // multiplies lr
};

template <class T>
struct AdamW {
  int tensors;
  int64_t total;                // elements of all tensors
  const AdamTensor<T>* tensor;  // [tensors]
  const AdamState* state;
};

MIMO_CONTRACT(AdamW);

}  // namespace mimo
