// Embedding lookup in the vocabulary rows [first, first + rows) held here: out_t = table[id_t - first], or 0
// where id_t lies outside (vocab-parallel: the sum over ranks is the lookup). Ids below 0 give 0 everywhere.
// Backward: dtable[id_t - first] += dout_t, tokens of one id summed in token order (CUDA: in stretches of up
// to 32, and then over these).
#pragma once
#include "kernels/kernel.h"

namespace mimo {

struct EmbeddingInputs {
  int64_t tokens;
  int cols;
  int64_t first, rows;
  const int32_t* ids;  // [tokens]
};

template <class T>
struct Embedding {
  EmbeddingInputs in;
  const T* table;  // [rows, cols]
  Rows<T> out;     // [tokens, cols]
};

template <class T>
struct EmbeddingBackward {
  EmbeddingInputs in;
  Rows<const T> dout;
  acc_t<T>* dtable;  // added to
};

MIMO_CONTRACT(Embedding);
MIMO_CONTRACT(EmbeddingBackward);

}  // namespace mimo
