#include "tensor/autograd.h"

#include <queue>
#include <unordered_set>

namespace mimo {
namespace {

thread_local bool enabled = true;
thread_local uint64_t next_order = 1;

NodePtr make_node(const char* name) {
  auto n = std::make_shared<Node>();
  n->name = name;
  n->order = next_order++;
  return n;
}

}  // namespace

bool grad_enabled() { return enabled; }
NoGrad::NoGrad() : before_(enabled) { enabled = false; }
NoGrad::~NoGrad() { enabled = before_; }

Tensor leaf(const Tensor& x) { return x.with_node(make_node("leaf")); }

Tensor record(Tensor y, const char* name, std::initializer_list<Tensor> inputs, BackwardFn f,
              bool trainable) {
  if (!enabled) return y;
  bool any = trainable;
  for (const Tensor& x : inputs) any = any || x.node();
  if (!any) return y;
  NodePtr n = make_node(name);
  for (const Tensor& x : inputs)
    if (x.node()) n->inputs.push_back(x.node());
  n->backward = std::move(f);
  return y.with_node(std::move(n));
}

void accumulate(const NodePtr& n, const Tensor& g) {
  if (!n) return;
  if (!n->grad.defined()) {
    n->grad = g.detach();
  } else if (n->grad.storage_use_count() == 1) {
    add_into(n->grad, g);
  } else {
    Tensor sum = Tensor::empty(g.shape(), g.dtype(), g.device());
    copy_into(sum, n->grad);
    add_into(sum, g);
    n->grad = sum;
  }
}

void backward(const Tensor& y, const Tensor& dy) { backward(std::span(&y, 1), std::span(&dy, 1)); }

void backward(std::span<const Tensor> y, std::span<const Tensor> dy) {
  const auto older = [](const NodePtr& a, const NodePtr& b) { return a->order < b->order; };
  std::priority_queue<NodePtr, std::vector<NodePtr>, decltype(older)> ready(older);
  std::unordered_set<Node*> seen;
  const auto visit = [&](const NodePtr& n) {
    if (seen.insert(n.get()).second) ready.push(n);
  };
  for (size_t i = 0; i < y.size(); ++i) {
    if (!y[i].node()) continue;
    MIMO_CHECK(y[i].shape() == dy[i].shape(),
               "gradient " + to_string(dy[i].shape()) + " of a result " + to_string(y[i].shape()));
    accumulate(y[i].node(), dy[i]);
    visit(y[i].node());
  }
  // A node is older than all that depends on it, so when it is the newest left, its gradient is complete.
  while (!ready.empty()) {
    NodePtr n = ready.top();
    ready.pop();
    if (!n->backward) continue;
    BackwardFn f = std::move(n->backward);
    n->backward = nullptr;
    Tensor g = std::move(n->grad);
    n->grad = Tensor();
    if (g.defined()) f(g);
    for (const NodePtr& in : n->inputs) visit(in);
    n->inputs.clear();
  }
}

std::vector<Tensor> split_columns(const Tensor& x, const std::vector<int64_t>& counts) {
  std::vector<Tensor> parts;
  int64_t begin = 0;
  for (int64_t count : counts) {
    parts.push_back(record(x.columns(begin, count), "split_columns", {x},
                           [in = x.node(), shape = x.shape(), begin, count](const Tensor& dy) {
                             if (!in) return;
                             // The parts' gradients meet in one buffer, which is ours alone until the parent
                             // runs.
                             if (!in->grad.defined())
                               in->grad = Tensor::zeros(shape, dy.dtype(), dy.device());
                             if (in->grad.storage_use_count() != 1 || !in->grad.contiguous()) {
                               Tensor own = Tensor::empty(shape, dy.dtype(), dy.device());
                               copy_into(own, in->grad);
                               in->grad = own;
                             }
                             add_into(in->grad.columns(begin, count), dy);
                           }));
    begin += count;
  }
  MIMO_CHECK(begin == x.cols(), "parts of " + std::to_string(begin) + " columns of " + to_string(x.shape()));
  return parts;
}

Tensor recompute(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                 const std::vector<Tensor>& inputs) {
  if (!enabled) return f(inputs);
  std::vector<Tensor> plain;
  std::vector<NodePtr> nodes;
  for (const Tensor& x : inputs) {
    plain.push_back(x.detach());
    nodes.push_back(x.node());
  }
  Tensor y;
  {
    NoGrad no_grad;
    y = f(plain);
  }
  NodePtr n = make_node("recompute");
  for (const NodePtr& in : nodes)
    if (in) n->inputs.push_back(in);
  n->backward = [f, plain, nodes](const Tensor& dy) {
    std::vector<Tensor> leaves;
    for (size_t i = 0; i < plain.size(); ++i) leaves.push_back(nodes[i] ? leaf(plain[i]) : plain[i]);
    backward(f(leaves), dy);
    for (size_t i = 0; i < plain.size(); ++i)
      if (nodes[i] && leaves[i].node()->grad.defined()) accumulate(nodes[i], leaves[i].node()->grad);
  };
  return y.detach().with_node(std::move(n));
}

}  // namespace mimo
