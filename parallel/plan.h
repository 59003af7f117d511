// The schedule of a step as data: one total order of actions. An action names every rank that must meet in
// it; a rank's list is the order restricted to it. Events only point backwards in the order, so the first
// unfinished action can always run, whatever blocks: no restriction to ranks or streams can deadlock.
//
//   PlanGraph graph = step_graph(layout, edges, costs);   // who computes what, and how long it takes
//   Plan plan = plan_step(graph, waves);                  // planner.cpp: the order
//   verify(plan, graph);                                  // verify.h
//   Timeline t = simulate(plan, graph);                   // simulate.h; draw.h shows it
//   Executor(graph, plan, ...).step(...);                 // execute.h
#pragma once
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "parallel/layout.h"

namespace mimo {

// Module `src` feeds module `dst`: from a stage's output port to a stage's input port, by default from the
// last to the first. Between the stages of a module edges are implied.
struct ModuleEdge {
  int src, dst;
  int src_stage = -1, dst_stage = 0;  // -1: the last
  int src_port = 0, dst_port = 0;
  bool operator==(const ModuleEdge&) const = default;
};
using ModuleEdges = std::vector<ModuleEdge>;

constexpr int kStream = -1;  // the port between a module's stages, before all others

// Every stage edge of the step, implied ones first (by module, stage), then the module edges in their order.
// Action.edge indexes this. Ports are numbered by module. A stage's inputs are those of its ports that an
// edge leads to, its outputs those that one leaves, in the order of their numbers.
struct StageEdge {
  int src_module, src_stage, dst_module, dst_stage;
  int src_port = kStream, dst_port = kStream;
  bool operator==(const StageEdge&) const = default;
};
std::vector<StageEdge> stage_edges(const Layout&, const ModuleEdges&);

struct Action {
  enum class Kind : uint8_t { forward, backward, send_forward, send_backward, reduce, step_reduce, update };
  Kind kind = Kind::forward;
  int module = -1, stage = -1, lane = -1;  // transfers: of the edge's source; reduce: lane -1 is all lanes
  int wave = -1;
  int edge = -1, dst_lane = -1;  // transfers: stage edge, from `lane` to `dst_lane` (in forward direction)
  int bucket = -1;               // reduce: which of the stage's buckets of gradients
  bool operator==(const Action&) const = default;
};
const char* name_of(Action::Kind);

// Gradients that are reduced together, once a step, as soon as they are complete: buckets are in the order in
// which the last backward completes them.
struct Bucket {
  double reduce = 0;  // takes so long over the stage's lanes
  double ready = 1;   // complete when this share of the last backward has passed,
  int part = 0;       // which is when it has come to this part of the module (see Stage)
};

// Of one wave in one lane, in any unit of time and of memory. A stage that passes gradients through frozen
// weights pays for that alone in `backward`; where no gradient passes at all there is no backward.
struct StageCost {
  double forward = 1, backward = 2;
  double memory = 1;                   // what is kept on each rank from forward to backward
  std::vector<Bucket> buckets = {{}};  // the same in all lanes
  bool trainable = true;               // some of its parameters
};

// What a lane's wave takes from one stage to the next and its gradient back, where they cross ranks.
struct TransferCost {
  double forward = 0, backward = 0;
  bool spread = false;  // at an end rows lie over parts (see spread.h): ranks of both ends may lack some too
};

struct Costs {
  std::vector<std::vector<StageCost>> stages;  // [module][stage]; empty: the defaults above
  std::vector<TransferCost> transfer;          // [stage edge]; empty: nothing
  double step_reduce = 0, update = 0;
};

// The nodes (module, stage, lane) of a step and the edges between them, with the ranks that compute each node
// together. Ranks may hold any number of nodes (colocated modules, virtual stages).
class PlanGraph {
 public:
  struct Node {
    int module = 0, stage = 0, lane = 0;
    Ranks ranks;  // tp fastest
    StageCost cost;
  };
  struct Edge {
    int src, dst;  // nodes
    TransferCost transfer = {};
    int stage_edge = -1;  // -1: its position in the list of edges
  };

  // Throws on an empty node, a rank outside the world, a cost that is negative or not finite, and a cycle.
  PlanGraph(std::vector<std::string> modules, std::vector<Node> nodes, std::vector<Edge> edges,
            bool forward_only = false, double step_reduce = 0, double update = 0);

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<Edge>& edges() const { return edges_; }
  const std::vector<int>& in(int node) const { return in_[node]; }    // edges, ordered by stage edge and lane
  const std::vector<int>& out(int node) const { return out_[node]; }  // edges, likewise
  const std::vector<std::string>& modules() const { return modules_; }
  int world() const { return world_; }
  bool forward_only() const { return forward_only_; }

  // Nodes on the longest path from here to an end of the graph, this one not counted.
  int distance(int node) const { return distance_[node]; }
  // It or something before it is trainable, so it has a backward; edges out of it carry gradients.
  bool has_backward(int node) const { return has_backward_[node]; }
  // The nodes after whose last action (backward, else forward) a wave of this one is no longer in flight:
  // itself, or where no gradient comes back, the first nodes downstream that settle it.
  const std::vector<int>& settled_by(int node) const { return settled_by_[node]; }
  // The seconds (or whatever unit costs have) an action takes.
  double duration(const Action&) const;

  int node(const Action&) const;         // of a forward, backward, or a transfer's source
  int edge(const Action&) const;         // of a transfer
  int destination(const Action&) const;  // node of a transfer's other end
  // The nodes whose gradients a reduce adds, lane by lane.
  const std::vector<int>& lanes(int module, int stage) const;
  const std::vector<Bucket>& buckets(int module, int stage) const;
  // All (module, stage) that have gradients to reduce.
  std::vector<std::pair<int, int>> reduced_stages() const;
  Ranks participants(const Action&) const;  // the ranks that must meet, sorted
  std::string describe(const Action&) const;

 private:
  std::vector<std::string> modules_;
  std::vector<Node> nodes_;
  std::vector<Edge> edges_;
  bool forward_only_;
  double step_reduce_, update_;
  int world_ = 0;
  std::vector<std::vector<int>> in_, out_, settled_by_;
  std::vector<int> distance_;
  std::vector<bool> has_backward_;
  std::map<std::pair<int, int>, std::vector<int>> by_stage_;  // (module, stage): nodes by lane
  std::map<std::array<int, 3>, int> edge_index_;              // (stage edge, lane, dst_lane)
};

// Stages of a module are linked lane by lane, modules where their deals can meet (lane_pairs). Costs are
// rounded to multiples of 2^-20 of the largest: sums of them are exact, so that every rank, on whatever
// machine, plans the very same order.
PlanGraph step_graph(const Layout&, const ModuleEdges&, const Costs& = {}, bool forward_only = false);

struct Plan {
  std::vector<Action> order;  // the total order
  int waves = 0;
  std::vector<int> in_flight;  // [node], most waves between forward and settlement
  std::string choice;          // how it was found, for people
};

struct PlanOptions {
  double memory = std::numeric_limits<double>::infinity();  // most a rank may keep, in units of Costs
};

// The shortest order within the memory bound that an event simulation finds under several policies (least
// memory among equals). Throws ConfigError where the bound cannot be met.
Plan plan_step(const PlanGraph&, int waves, const PlanOptions& = {});

// The actions of one rank, in order.
Plan restrict_to(const Plan&, int rank, const PlanGraph&);

}  // namespace mimo
