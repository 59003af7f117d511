#include "tensor/autograd.h"

#include <atomic>
#include <queue>

namespace mimo {
namespace {

thread_local bool enabled = true;
std::atomic<uint64_t> next_order = 1;

NodePtr make_node(const char* name, const Tensor& y, std::span<const Tensor> inputs, BackwardFn f) {
  auto n = std::make_shared<Node>();
  n->name = name;
  n->order = next_order++;
  n->shape = y.shape();
  n->dtype = y.dtype();
  for (const Tensor& x : inputs)
    if (x.node()) n->inputs.push_back(x.node());
  n->backward = std::move(f);
  return n;
}

bool any_node(std::span<const Tensor> inputs) {
  for (const Tensor& x : inputs)
    if (x.node()) return true;
  return false;
}

}  // namespace

// A chain of nodes goes in a loop: each node's destructor destroying its inputs would need stack for all of
// it.
Node::~Node() {
  std::vector<NodePtr> last = std::move(inputs);
  backward = nullptr;
  while (!last.empty()) {
    NodePtr n = std::move(last.back());
    last.pop_back();
    if (n.use_count() > 1) continue;
    for (NodePtr& in : n->inputs) last.push_back(std::move(in));
    n->inputs.clear();
  }
}

GradMode::GradMode(bool on) : before_(enabled) { enabled = on; }
GradMode::~GradMode() { enabled = before_; }

Tensor leaf(const Tensor& x) { return x.with_node(make_node("leaf", x, {}, nullptr)); }

Tensor record(Tensor y, const char* name, std::initializer_list<Tensor> inputs, BackwardFn f,
              bool trainable) {
  if (!enabled || (!trainable && !any_node(inputs))) return y;
  return y.with_node(make_node(name, y, inputs, std::move(f)));
}

void accumulate(const NodePtr& n, const Tensor& g) {
  if (!n) return;
  MIMO_CHECK(g.defined() && g.shape() == n->shape && g.dtype() == n->dtype,
             std::string("gradient ") + to_string(g) + " for the result " + name_of(n->dtype) + " " +
                 to_string(n->shape) + " of " + n->name);
  MIMO_CHECK(!n->used, std::string("a gradient for ") + n->name + " after its backward has run");
  if (!n->grad.defined()) {
    n->grad = g.detach();
  } else if (n->grad.storage_use_count() == 1) {
    add_into(n->grad, g);
  } else {  // shared: with another node, with the caller
    Tensor sum = Tensor::empty(g.shape(), g.dtype(), g.device());
    copy_into(sum, n->grad);
    add_into(sum, g);
    n->grad = sum;
  }
}

void backward(const Tensor& y, const Tensor& dy) { backward(std::span(&y, 1), std::span(&dy, 1)); }

void backward(std::span<const Tensor> y, std::span<const Tensor> dy) {
  MIMO_CHECK(y.size() == dy.size(),
             std::to_string(dy.size()) + " gradients for " + std::to_string(y.size()) + " results");
  NoGrad no_grad;
  const auto older = [](const NodePtr& a, const NodePtr& b) { return a->order < b->order; };
  std::priority_queue<NodePtr, std::vector<NodePtr>, decltype(older)> ready(older);
  for (size_t i = 0; i < y.size(); ++i) {
    if (!y[i].node()) continue;
    accumulate(y[i].node(), dy[i]);
    ready.push(y[i].node());
  }
  // A node is older than all that depend on it, so when it is the newest left, its gradient is complete.
  while (!ready.empty()) {
    const NodePtr n = ready.top();
    while (!ready.empty() && ready.top() == n) ready.pop();  // once for each that depends on it
    MIMO_CHECK(!n->used, std::string("a second backward through ") + n->name);
    if (!n->backward) continue;
    const BackwardFn f = std::move(n->backward);
    n->backward = nullptr;
    n->used = true;
    const Tensor g = std::move(n->grad);
    n->grad = Tensor();
    if (g.defined()) f(g);
    for (const NodePtr& in : n->inputs) ready.push(in);
    n->inputs.clear();
  }
}

std::vector<Tensor> split_columns(const Tensor& x, const std::vector<int64_t>& counts) {
  // The parts write side by side in the gradient of this node, which runs after all of them and hands it on.
  auto written = std::make_shared<std::vector<bool>>(counts.size());
  const Tensor all =
      record(x.detach(), "split_columns", {x}, [in = x.node(), counts, written](const Tensor& dx) {
        int64_t begin = 0;
        for (size_t i = 0; i < counts.size(); begin += counts[i++])
          if (!(*written)[i]) fill(dx.columns(begin, counts[i]), 0);
        accumulate(in, dx);
      });
  std::vector<Tensor> parts;
  int64_t begin = 0;
  for (size_t i = 0; i < counts.size(); begin += counts[i++])
    parts.push_back(record(x.columns(begin, counts[i]), "split_columns", {all},
                           [to = all.node(), i, begin, written](const Tensor& dy) {
                             if (!to->grad.defined())
                               to->grad = Tensor::empty(to->shape, to->dtype, dy.device());
                             copy_into(to->grad.columns(begin, dy.cols()), dy);
                             (*written)[i] = true;
                           }));
  MIMO_CHECK(begin == x.cols(), "parts " + to_string(counts) + " of the columns of " + to_string(x));
  return parts;
}

Tensor recompute(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                 const std::vector<Tensor>& inputs, bool trainable) {
  if (!enabled || (!trainable && !any_node(inputs))) return f(inputs);
  std::vector<Tensor> plain;
  std::vector<NodePtr> nodes;
  for (const Tensor& x : inputs) {
    plain.push_back(x.detach());
    nodes.push_back(x.node());
  }
  Tensor y;
  {
    NoGrad no_grad;
    y = f(plain).detach();
  }
  return y.with_node(make_node("recompute", y, inputs, [f, plain, nodes](const Tensor& dy) {
    std::vector<Tensor> leaves;
    for (size_t i = 0; i < plain.size(); ++i) leaves.push_back(nodes[i] ? leaf(plain[i]) : plain[i]);
    Tensor again;
    {
      GradMode grad(true);
      again = f(leaves);
    }
    backward(again, dy);
    for (size_t i = 0; i < plain.size(); ++i)
      if (nodes[i] && leaves[i].node()->grad.defined()) accumulate(nodes[i], leaves[i].node()->grad);
  }));
}

}  // namespace mimo
