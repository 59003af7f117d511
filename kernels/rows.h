// Moving rows: gather out_i = x[rows_i], scatter out[rows_i] = x_i (rows are distinct; others keep their
// value), and ScatterAddRows out[rows_i] += x_i. This places the rows of a modality in the token stream and
// takes them back.
#pragma once
#include "kernels/kernel.h"

namespace mimo {

template <class T>
struct GatherRows {
  int64_t count, cols;
  const int32_t* rows;  // [count]
  Rows<const T> x;
  Rows<T> out;  // [count, cols]
};

template <class T>
struct ScatterRows {
  int64_t count, cols;
  const int32_t* rows;   // [count], distinct
  Rows<const T> x = {};  // [count, cols], or null: zeros
  Rows<T> out;
};

template <class T>
struct ScatterAddRows {
  int64_t count, cols;
  const int32_t* rows;  // [count], distinct
  Rows<const T> x;
  Rows<T> out;
};

MIMO_CONTRACT(GatherRows);
MIMO_CONTRACT(ScatterRows);
MIMO_CONTRACT(ScatterAddRows);

}  // namespace mimo
