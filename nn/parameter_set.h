// Where a module's parameters live, and how its layers make them: each layer asks for a parameter by name,
// global shape and Cut; everything else (shard, copies, reductions, values) follows from the grid.
#pragma once
#include <deque>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/cut.h"

namespace mimo {

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

}  // namespace mimo
