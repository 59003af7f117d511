// Where a module's parameters live, and how its layers make them: each layer asks for a parameter by name,
// global shape and the way tensor parallelism cuts it; everything else (copies, reductions, values) follows
// from the grid.
#pragma once
#include <deque>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/grid.h"
#include "tensor/parameter.h"

namespace mimo {

// How tp cuts a parameter: not at all, or along an axis made of blocks that are each cut tp ways.
struct Cut {
  int axis = -1;
  std::vector<int64_t> blocks;  // empty: the whole axis is one block
  bool uneven = false;          // rows that tp does not divide (vocabulary)
};
inline const Cut kReplicated{};
inline const Cut kRows{0, {}, false};
inline const Cut kColumns{1, {}, false};

// What a stage of a module is on this rank.
struct ModuleContext {
  std::string module;  // name, the prefix of all its parameters
  Grid grid;
  Coord coord;
  Communicator* tp = nullptr;  // null where tp = 1
  DType dtype = DType::f32;
  uint64_t seed = 0;
  bool trainable = true;
  double init_std = 0.02;  // of linear layers; 0: 1 / sqrt(inputs)
  bool values = true;      // false: parameters are described, not made: to count them
  double std_of(int64_t inputs) const;
};

class ParameterSet {
 public:
  explicit ParameterSet(ModuleContext context) : context_(std::move(context)) {}

  const ModuleContext& context() const { return context_; }
  int tp() const { return context_.grid.tp; }
  Communicator* group() const { return context_.tp; }

  enum class Precision {
    compute,
    full
  };  // full: fp32 also where the rest is bf16 (Mamba's A_log, D, dt_bias)
  Parameter& make(const std::string& name, Dims shape, const Cut& cut, Initializer init,
                  Precision precision = Precision::compute);

  std::vector<Parameter*> all();

 private:
  ModuleContext context_;
  std::deque<Parameter> parameters_;  // stable addresses
};

inline Initializer normal(double std) { return {Distribution::normal, 0, std}; }
inline Initializer constant(double value) { return {Distribution::constant, value, 0}; }

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

// A contiguous cut of layers over stages that makes the dearest stage as cheap as possible: stage s gets
// [result[s], result[s + 1]). Every stage gets at least one layer. Throws where there are fewer layers than
// stages.
std::vector<int> split_layers(const std::vector<double>& cost, int stages);

}  // namespace mimo
