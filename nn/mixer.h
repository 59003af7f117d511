// The mixers of a hybrid layer: every symbol of the pattern is one residual layer h += mixer(rms_norm(h)). A
// mixer is one file in nn/mixers/ that registers itself: its keys and checks, what it costs, how it is made.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "io/config.h"
#include "io/registry.h"
#include "nn/module.h"
#include "nn/ops.h"
#include "parallel/step.h"

namespace mimo {

// What a model's mixers share.
struct HybridStream {
  std::string module;  // the model's name
  int64_t hidden = 0;
  int layers = 0;
  int conv_width = 4;
  double eps = 1e-5;
};

// In a stage, cut as its rank's part of the tensor parallel group is.
class Mixer {
 public:
  virtual ~Mixer() = default;
  virtual Tensor operator()(const Tensor& x, const Sequences&, Step&) const = 0;  // [T, hidden] both
};

// A mixer's options, read.
class MixerSpec {
 public:
  virtual ~MixerSpec() = default;
  virtual void check(int tp) const = 0;           // throws ConfigError
  virtual double flops(double length) const = 0;  // of forward, a row in a sequence of so many rows
  virtual double kept(int tp) const = 0;          // elements a row that each of tp ranks keeps for backward
  virtual int64_t columns_summed() const { return 0; }  // a row, by tp ranks, besides the result's
  // With parameters named PREFIX.* ("layers.3.mixer").
  virtual std::unique_ptr<Mixer> make(ParameterSet&, const std::string& prefix) const = 0;
};

struct MixerKind {
  std::string name;  // its symbol, one character
  std::string help;
  std::function<void(Keys&)> declare;
  std::function<std::unique_ptr<MixerSpec>(const Config::Section&, const HybridStream&)> read;
};

}  // namespace mimo
