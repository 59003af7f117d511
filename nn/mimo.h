// The MIMO model as a whole: modules, each on its own grid, and the edges between their ports.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "nn/module.h"
#include "parallel/gradients.h"
#include "parallel/plan.h"

namespace mimo {

// Whether a part of a module takes part in backward.
struct PartBackward {
  bool weights = false;  // some of its parameters are trained
  bool input = false;    // a gradient passes on to what is before it
  bool any() const { return weights || input; }
};

struct ModelSpec {
  struct Edge {
    int src, output, dst, input;  // modules and the indices of their ports
    bool operator==(const Edge&) const = default;
  };

  std::vector<std::shared_ptr<Module>> modules;  // in the configuration's order
  std::vector<Edge> edges;
  DType dtype = DType::f32;
  uint64_t seed = 0;
  bool recompute = false;
  int64_t bucket_bytes = kBucketBytes;  // of gradients that are reduced together, see nn/costs.h
  Freezing freezing;
  std::vector<std::vector<PartBackward>> backward;  // [module][part], see settle_backward

  int size() const { return static_cast<int>(modules.size()); }
  const Module& operator[](int module) const { return *modules[static_cast<size_t>(module)]; }
  std::vector<std::string> names() const;
  // The module whose last stage predicts tokens.
  int predictor() const;
  // What modules add up, by name.
  std::vector<std::string> sums() const;
};

// The keys of modules: those of every kind, and of each kind in the registry.
void declare_model_keys(Schema&);

// The modules of the configuration, connected: by [edges], each line `NAME = ["TO", ...]` in which TO is
// MODULE, MODULE.INPUT or OUTPUT -> MODULE.INPUT; without that section every other module feeds the one that
// predicts. Throws ConfigError naming the key.
ModelSpec model_spec(const Config&, const DataSpec&);

// An edge as it is asked for: `to` is MODULE, MODULE.INPUT or OUTPUT -> MODULE.INPUT; place is for errors.
struct EdgeRequest {
  std::string from, to, place;
};
// Makes these edges: finds their ports and settles widths and flows, sources before destinations. Throws
// ConfigError.
void connect(ModelSpec&, const std::vector<EdgeRequest>&);

// Fills in `backward`, from what is frozen and the edges.
void settle_backward(ModelSpec&);

// Whether the model fits the layout: sizes divide by tp, stages do not outnumber layers. Throws ConfigError
// naming the key. The layout's modules are in the order of the model's.
void check_model(const ModelSpec&, const Layout&);

// What a stage holds: by the configuration's marks where there are stages - 1 of them, else such that the
// dearest stage is as cheap as possible.
Parts stage_parts(const Module&, int stage, int stages);
// The layers among them, [first, second).
std::pair<int, int> stage_layers(const Module&, int stage, int stages);

// The model's edges between the stages of a layout.
ModuleEdges module_edges(const ModelSpec&, const Layout&);
// What crosses a stage edge: rows of a sample and their width.
int64_t edge_rows(const ModelSpec&, const StageEdge&, const SampleSizes&);
int64_t edge_width(const ModelSpec&, const StageEdge&);

// A stage of a module, as a rank with these coordinates (but for pp, which the stage says) holds it. tp is
// null where the grid's tp is 1.
std::unique_ptr<Stage> make_stage(const ModelSpec&, int module, const Grid&, int stage, const Coord&,
                                  Communicator* tp);

// The same with parameters that are described and have no memory.
std::unique_ptr<Stage> describe_stage(const ModelSpec&, int module, const Grid&, int stage, const Coord&);

// Elements of the parameters of that stage, without making it.
int64_t parameter_count(const ModelSpec&, int module, const Grid&, int stage, const Coord&);

}  // namespace mimo
