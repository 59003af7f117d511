// Linear layers, whole or cut over tensor parallel ranks.
#pragma once
#include <string>
#include <vector>

#include "nn/parameter_set.h"
#include "tensor/autograd.h"

namespace mimo {

// Linear layers. Column-parallel: the output columns (rows of W) are cut, x is whole. Row-parallel: the input
// columns are cut, the sum over ranks is whole; its bias is added once, after the sum.
struct Linear {
  Parameter* weight = nullptr;
  Parameter* bias = nullptr;
  Communicator* group = nullptr;
  bool row_parallel = false;
  Tensor operator()(const Tensor& x) const;
};
Linear column_linear(ParameterSet&, const std::string& name, int64_t in, int64_t out, bool bias,
                     std::vector<int64_t> blocks = {});
// `residual` layers, of a model that has that many, start smaller by sqrt(2 layers), so that the residual
// stream does not grow with depth (GPT-2, Megatron); 0: as the others.
Linear row_linear(ParameterSet&, const std::string& name, int64_t in, int64_t out, bool bias,
                  int residual_layers = 0);
Linear replicated_linear(ParameterSet&, const std::string& name, int64_t in, int64_t out, bool bias);

}  // namespace mimo
