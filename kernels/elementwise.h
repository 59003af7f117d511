// Plain elementwise ops: fill, add, scale, casts, and the column sum that is a bias gradient.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct Fill {  // y = value
  int64_t rows, cols;
  Rows<T> y;
  acc_t<T> value;
};

template <class T>
struct Add {  // y = a + b; y may be a or b; a row stride of 0 adds one row to all
  int64_t rows, cols;
  Rows<const T> a, b;
  Rows<T> y;
};

template <class T>
struct Copy {  // y = x; a row stride of 0 repeats one row
  int64_t rows, cols;
  Rows<const T> x;
  Rows<T> y;
};

template <class T>
struct Scale {  // x *= *factor, read from the device
  int64_t n;
  T* x;
  const double* factor;
};

template <class T>
struct ToAcc {  // y = x in acc_t<T>; accumulate: y += x
  int64_t n;
  const T* x;
  acc_t<T>* y;
  bool accumulate = false;
};

template <class T>
struct FromAcc {  // y = x rounded to T
  int64_t n;
  const acc_t<T>* x;
  T* y;
};

template <class T>
struct AddColumnSums {  // y[c] += sum over rows of x[r, c]; two stages, fixed order
  int64_t rows;
  int cols;
  Rows<const T> x;
  acc_t<T>* y;
};

MIMO_CONTRACT(Fill);
MIMO_CONTRACT(Add);
MIMO_CONTRACT(Copy);
MIMO_CONTRACT(Scale);
MIMO_CONTRACT(ToAcc);
MIMO_CONTRACT(FromAcc);
MIMO_CONTRACT(AddColumnSums);
template <class T>
int64_t workspace(const Cpu&, const AddColumnSums<T>&);

}  // namespace mimo
