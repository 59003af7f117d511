// Reverse-mode differentiation. An op computes its result on plain data and records, when a gradient is
// wanted, a node with the closure that turns the result's gradient into its inputs' gradients:
//
//   Tensor y = ...;                                             // forward on data
//   return record(y, "silu", {x}, [x = x.detach(), in = x.node()](const Tensor& dy) {
//     Tensor dx = ...; accumulate(in, dx);
//   });
//
// A closure holds what backward needs and nothing else; tensors in it are detached. Gradients of parameters
// do not pass through nodes: a closure adds them to Parameter::grad directly, so weight gradients accumulate
// in fp32 inside the GEMM.
#pragma once
#include <functional>
#include <span>

#include "tensor/tensor.h"

namespace mimo {

using BackwardFn = std::function<void(const Tensor& grad)>;

struct Node {
  const char* name = "";
  uint64_t order = 0;  // of creation, over all threads: inputs always come before results
  Dims shape;          // of the result, and of its gradient
  DType dtype = DType::f32;
  std::vector<NodePtr> inputs;
  BackwardFn backward;  // empty: a leaf, which keeps its gradient
  bool used = false;    // backward has run and is gone
  Tensor grad;
  ~Node();
};

class GradMode {  // while it lives, this thread records, or does not
 public:
  explicit GradMode(bool enabled);
  ~GradMode();
  GradMode(const GradMode&) = delete;

 private:
  bool before_;
};
struct NoGrad : GradMode {
  NoGrad() : GradMode(false) {}
};

// A handle on the same data that gathers its gradient in node()->grad.
Tensor leaf(const Tensor&);

// Attaches a node to y if grad is enabled and any input has one, or `trainable` (a parameter of the op wants
// a gradient).
Tensor record(Tensor y, const char* name, std::initializer_list<Tensor> inputs, BackwardFn,
              bool trainable = false);

// Adds g, of the node's dtype and shape, to its gradient; null nodes are ignored. g may be shared with others
// and may be a column slice: it is never written to, and a closure may get it back as it is.
void accumulate(const NodePtr&, const Tensor& g);

// Runs the closures of all nodes y depends on, newest first, starting from dy; closures do not record. Nodes
// are used up: closures and inner gradients are freed as soon as they have run, and a second run throws.
void backward(const Tensor& y, const Tensor& dy);
// From several roots at once.
void backward(std::span<const Tensor> y, std::span<const Tensor> dy);

// Column slices of a fused projection that share its storage: no copy forward; backward gathers the parts'
// gradients in one buffer, with zeros where a part has none. The counts add up to x.cols().
std::vector<Tensor> split_columns(const Tensor& x, const std::vector<int64_t>& counts);

// Activation recompute: runs f without recording and keeps only its inputs; backward runs f again and
// differentiates it, with the same bits if f has the same bits. trainable: as for record.
Tensor recompute(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                 const std::vector<Tensor>& inputs, bool trainable = true);

}  // namespace mimo
