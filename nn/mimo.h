// The MIMO model as a whole: several encoders feed one language model, each module on its own grid.
// This is the place that knows which kinds of modules exist and what crosses between stages.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "nn/hybrid.h"
#include "nn/vit.h"
#include "parallel/plan.h"

namespace mimo {

struct ModuleSpec {
  enum class Kind { vit, hybrid } kind = Kind::hybrid;
  std::string name;
  VitOptions vit;        // kind vit
  HybridOptions hybrid;  // kind hybrid
  bool trainable = true;
  double init_std = 0.02;  // 0: 1 / sqrt(inputs)
  int layers() const;
};

struct ModelSpec {
  std::vector<ModuleSpec>
      modules;  // encoders in the order of the dataset's modalities, then the language model
  DType dtype = DType::f32;
  uint64_t seed = 0;
  bool recompute = false;

  int language() const { return static_cast<int>(modules.size()) - 1; }
  ModuleEdges edges() const;  // every encoder -> the language model
  std::vector<std::string> names() const;
};

// Whether the model fits the layout: heads, key-value heads, groups and widths divide by tp, stages do not
// outnumber layers. Throws ConfigError naming the key. The layout's modules are in the order of the model's.
void check_model(const ModelSpec&, const Layout&);

// Layers [first, second) of a stage: by the pattern's bars where there are stages - 1 of them, else such that
// the dearest stage is as cheap as possible.
std::pair<int, int> stage_layers(const ModuleSpec&, int stage, int stages);

// What crosses a stage edge: rows of a sample and their width.
int64_t edge_rows(const ModelSpec&, const StageEdge&, const SampleSizes&);
int64_t edge_width(const ModelSpec&, const StageEdge&);

// The stage of a module this rank holds. tp is null where the grid's tp is 1.
std::unique_ptr<Stage> make_stage(const ModelSpec&, int module, const Grid&, const Coord&, Communicator* tp);

// The same with parameters that are described and have no memory.
std::unique_ptr<Stage> describe_stage(const ModelSpec&, int module, const Grid&, const Coord&);

// Elements of the parameters of that stage, without making it.
int64_t parameter_count(const ModelSpec&, int module, const Grid&, const Coord&);

}  // namespace mimo
