// Where a module's parameters live, and how its layers make them: each layer asks for a parameter by name,
// global shape and Cut; everything else (shard, copies, reductions, values) follows from the grid.
#pragma once
#include <deque>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/cut.h"

namespace mimo {

// Consecutive parts of a module (see nn/module.h) that a stage holds: [begin, end).
struct Parts {
  int begin = 0, end = 0;
  bool contains(int part) const { return part >= begin && part < end; }
  bool operator==(const Parts&) const = default;
};

// Which parameters keep their values: those whose name matches a pattern of `freeze` and none of `unfreeze`.
// A pattern is a name in which * stands for any text.
struct Freezing {
  std::vector<std::string> freeze, unfreeze;
  bool trainable(const std::string& parameter) const;
};

// What a stage of a module is on this rank.
struct ModuleContext {
  std::string module;  // name, the prefix of all its parameters
  Parts parts;
  Grid grid;
  Coord coord;
  Communicator* tp = nullptr;  // null where tp = 1
  DType dtype = DType::f32;
  uint64_t seed = 0;
  Freezing freezing;
  double init_std = 0.02;  // of linear layers; 0: 1 / sqrt(inputs)
  bool recompute = false;  // layers keep their inputs alone
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

  // Whose parameters are made from here on; parts come in their order.
  void begin_part(int part);
  std::vector<Parameter*> all();
  std::vector<Parameter*> of_part(int part);
  bool trainable(int part) const;  // any parameter of the part

 private:
  ModuleContext context_;
  std::deque<Parameter> parameters_;  // stable addresses
  std::vector<size_t> begins_;        // of the parts from context_.parts.begin on: their first parameter
};

inline Initializer normal(double std) { return {Distribution::normal, 0, std}; }
inline Initializer constant(double value) { return {Distribution::constant, value, 0}; }

}  // namespace mimo
