// What a model is made of: modules, such as an encoder or a language model. A kind of module is one file in
// nn/kinds/ that registers itself: its keys and checks, its ports, what it costs, and the stages it makes.
//
// A module is a stream of rows that passes through parts: the front (part 0: what makes the stream), its
// layers (parts 1 to layers()), the back (part layers() + 1: what ends the stream). A pipeline stage holds
// consecutive parts. Tensors enter and leave at ports, each of which belongs to a part:
//
//   vision                                   language
//   front - layer 0 - layer 1 - back         front - layer 0 - layer 1 - back
//     |                          |             |                           |
//   items of the batch        features ----> image                       loss
//
// An edge of the model takes what leaves an output port to an input port. Edges into one port add up, and so
// do the gradients that come back to one output port.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/config.h"
#include "io/preprocessing.h"
#include "io/registry.h"
#include "nn/parameter_set.h"
#include "parallel/rates.h"
#include "parallel/stage.h"

namespace mimo {

// What crosses an edge: of every sample so many rows, laid end to end, of this width.
struct Flow {
  int64_t width = 0;
  int modality = -1;  // the rows fill the places of this modality's items in the token stream
  std::function<int64_t(const SampleSizes&)> rows;
};

struct InputPort {
  std::string name;
  int part = 0;
  int64_t width = 0;  // that it takes; 0: any
  Flow flow = {};     // what comes in; of several edges all alike
};
struct OutputPort {
  std::string name;
  int part = 0;
  int64_t width = 0;  // that it gives; 0: what its consumers take
};

// What a part does for some samples, whole but where it says so.
struct PartCost {
  double flops = 0;           // of forward
  double kept = 0;            // elements that a tensor parallel rank keeps for backward
  Traffic forward, backward;  // all_reduces of tensor parallel ranks
};

// What the dataset fixes for a model.
struct DataSpec {
  int64_t vocab = 0;
  std::vector<Modality> modalities;  // in the order of PackedBatch::items
  // Throws ConfigError at `place` where there is none of that name.
  int modality(const std::string& name, const std::string& place) const;
};

// A module that reads the items of a modality, and what is made of them for it.
struct ItemReader {
  int modality = 0;
  Preprocessing preprocessing;
};

class Module {
 public:
  virtual ~Module() = default;

  std::string name;        // in the configuration
  double init_std = 0.02;  // of initial linear weights; 0: 1 / sqrt(inputs)

  // The stream.
  virtual int layers() const = 0;
  virtual int64_t width() const = 0;
  virtual int64_t rows(const SampleSizes&) const = 0;
  int parts() const { return layers() + 2; }
  // Layers of the same type cost the same.
  virtual std::string layer_type(int /*layer*/) const { return ""; }
  // Where the configuration marks ends of stages: layers before each mark. None: stages are cut by cost.
  virtual std::vector<int> marks() const { return {}; }

  // Throws ConfigError where tensor parallel ranks cannot share it.
  virtual void check(int /*tp*/) const {}
  virtual PartCost cost(int part, const std::vector<SampleSizes>&, int tp, DType) const = 0;
  virtual std::unique_ptr<Stage> make_stage(const ModuleContext&) const = 0;

  virtual std::optional<ItemReader> items() const { return std::nullopt; }
  virtual bool predicts() const { return false; }  // its last stage is a PredictingStage
  virtual int position_axes() const { return 1; }  // of PackedBatch::positions, where it predicts
  virtual std::vector<std::string> sums() const { return {}; }  // that its stages add to

  // Ports. An edge names one or leaves the choice to the module. Indices are those of inputs() and outputs().
  const std::vector<InputPort>& inputs() const { return inputs_; }
  const std::vector<OutputPort>& outputs() const { return outputs_; }
  // The port of that name, made where it did not exist yet; throws ConfigError at `place`. "": the module's
  // choice, for what a flow of that modality (-1: not known) brings.
  virtual int output(const std::string& port, const std::string& place);
  virtual int input(const std::string& port, int modality, const std::string& place);
  // What leaves an output port, once everything that comes in is known.
  virtual Flow flow(int output) const;
  // For whoever connects modules.
  void take(int input, const Flow& f) { inputs_[static_cast<size_t>(input)].flow = f; }
  void set_width(int output, int64_t width) { outputs_[static_cast<size_t>(output)].width = width; }
  // Of what leaves at its ports; -1: not known.
  virtual int modality() const { return -1; }

 protected:
  std::vector<InputPort> inputs_;
  std::vector<OutputPort> outputs_;
};

// Throws ConfigError unless tp divides the value of a module's key.
void check_divides(const std::string& module, const std::string& key, int64_t value, int tp);

struct ModuleKind {
  std::string name, help;
  std::function<void(Keys&)> declare;
  std::function<std::unique_ptr<Module>(const Config::Section&, const DataSpec&)> read;
};

// Per counted row of a batch: which sample of the batch it belongs to and whether the prediction was right.
struct Prediction {
  int sample;  // index into PackedBatch::samples
  int32_t argmax, label;
  double loss;  // -ln p(label)
};

class PredictingStage : public Stage {
 public:
  // Predictions of the last forward (last stage only); waits for it.
  virtual std::vector<Prediction> predictions() const = 0;
};

}  // namespace mimo
