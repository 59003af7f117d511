#include "tensor/autograd.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>
#include <thread>

namespace mimo {
namespace {

using Values = std::vector<double>;

Tensor of(const Values& v, Dims shape = {}) { return Tensor::of(v, std::move(shape)); }
Values values(const Tensor& x) { return x.to_vector<double>(); }
Values grad(const Tensor& x) { return values(x.node()->grad); }

template <class F>
Tensor map(const Tensor& x, F&& f) {
  Values v = values(x);
  for (double& e : v) e = f(e);
  return of(v, x.shape());
}

// Ops enough to build graphs; their gradients are exact in small integers.
Tensor add(const Tensor& a, const Tensor& b) {
  Tensor y = Tensor::empty(a.shape(), a.dtype());
  copy_into(y, a);
  add_into(y, b);
  return record(y, "add", {a, b}, [p = a.node(), q = b.node()](const Tensor& dy) {
    accumulate(p, dy);  // one gradient, shared by both
    accumulate(q, dy);
  });
}

Tensor scale(const Tensor& x, double k) {
  return record(map(x, [k](double v) { return k * v; }), "scale", {x}, [k, in = x.node()](const Tensor& dy) {
    accumulate(in, map(dy, [k](double v) { return k * v; }));
  });
}

Tensor multiply(const Tensor& a, const Tensor& b) {
  const auto product = [](const Tensor& p, const Tensor& q) {
    Values v = values(p), w = values(q);
    for (size_t i = 0; i < v.size(); ++i) v[i] *= w[i];
    return of(v, p.shape());
  };
  return record(product(a, b), "multiply", {a, b},
                [product, a = a.detach(), b = b.detach(), p = a.node(), q = b.node()](const Tensor& dy) {
                  if (p) accumulate(p, product(dy, b));
                  if (q) accumulate(q, product(dy, a));
                });
}

Tensor square_tanh(const Tensor& x) {
  const auto f = [](double v) { return std::tanh(v) * std::tanh(v); };
  return record(map(x, f), "square_tanh", {x}, [x = x.detach(), in = x.node()](const Tensor& dy) {
    Values d = values(dy), v = values(x);
    for (size_t i = 0; i < d.size(); ++i)
      d[i] *= 2 * std::tanh(v[i]) * (1 - std::tanh(v[i]) * std::tanh(v[i]));
    accumulate(in, of(d, x.shape()));
  });
}

template <class F>
std::string thrown(F&& f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return {};
}

TEST(Autograd, Chain) {
  const Tensor x = leaf(of({1, 2}));
  backward(scale(scale(x, 3), 5), of({1, 10}));
  EXPECT_EQ(grad(x), (Values{15, 150}));
}

TEST(Autograd, DiamondRunsEveryNodeOnce) {
  const Tensor x = leaf(of({3}));
  int runs = 0;
  const Tensor h = record(x.detach(), "count", {x}, [&runs, in = x.node()](const Tensor& dy) {
    ++runs;
    accumulate(in, dy);
  });
  // y = 2 h + (2 h) h + h: the paths to h have lengths 1, 2 and 3.
  const Tensor a = scale(h, 2);
  const Tensor y = add(add(a, multiply(a, h)), h);
  EXPECT_EQ(values(y), Values{6 + 18 + 3});
  backward(y, of({1}));
  EXPECT_EQ(grad(x), Values{2 + 4 * 3 + 1});
  EXPECT_EQ(runs, 1);
}

TEST(Autograd, LadderOfDiamondsIsLinear) {
  // 2^60 paths; every node runs once, with its whole gradient.
  const Tensor x = leaf(of({1}));
  Tensor y = x;
  for (int i = 0; i < 60; ++i) y = add(y, y);
  backward(y, of({1}));
  EXPECT_EQ(grad(x), Values{0x1p60});
}

TEST(Autograd, LeavesGatherOverBackwards) {
  const Tensor x = leaf(of({1}));
  for (int i = 0; i < 3; ++i) backward(scale(x, 2), of({1}));
  EXPECT_EQ(grad(x), Values{6});
}

TEST(Autograd, SharedGradientsAreNeverWrittenTo) {
  const Tensor x = leaf(of({1})), y = leaf(of({1})), z = leaf(of({1}));
  const Tensor dy = of({1});
  // dy goes as it is to x, y and z; each then gathers more.
  const Tensor s = add(add(x, y), z);
  const Tensor t = add(s, scale(x, 10));
  backward(t, dy);
  EXPECT_EQ(values(dy), Values{1}) << "the caller's";
  EXPECT_EQ(grad(x), Values{11});
  EXPECT_EQ(grad(y), Values{1});
  EXPECT_EQ(grad(z), Values{1});
  const Tensor kept = y.node()->grad;
  backward(scale(y, 100), of({1}));
  EXPECT_EQ(grad(y), Values{101});
  EXPECT_EQ(values(kept), Values{1}) << "a handle taken before";
  // x + x: the same gradient twice to one node.
  const Tensor w = leaf(of({1}));
  backward(add(w, w), dy);
  EXPECT_EQ(grad(w), Values{2});
  EXPECT_EQ(values(dy), Values{1});
  // A leaf and a root at once.
  backward(w, dy);
  EXPECT_EQ(grad(w), Values{3});
}

TEST(Autograd, OwnGradientsAreAddedInPlace) {
  const Tensor x = leaf(of({1}));
  accumulate(x.node(), of({1}));
  const void* at = x.node()->grad.raw();
  accumulate(x.node(), of({2}));
  EXPECT_EQ(x.node()->grad.raw(), at);
  EXPECT_EQ(grad(x), Values{3});
}

TEST(Autograd, ColumnSlicesAsGradients) {
  const Tensor x = leaf(of({0, 0}, {2, 1}));
  const Tensor fused = of({1, 2, 3, 4}, {2, 2});
  accumulate(x.node(), fused.columns(1, 1));
  accumulate(x.node(), fused.columns(0, 1));
  EXPECT_EQ(grad(x), (Values{3, 7}));
  EXPECT_EQ(values(fused), (Values{1, 2, 3, 4}));
}

TEST(Autograd, SeveralRoots) {
  const Tensor x = leaf(of({1}));
  const Tensor a = scale(x, 2), b = scale(a, 3);  // one root depends on the other
  const std::array<Tensor, 3> y{a, b, of({7})}, dy{of({1}), of({10}), of({1})};
  backward(y, dy);
  EXPECT_EQ(grad(x), Values{2 + 60});
  EXPECT_NE(thrown([&] { backward(y, std::span(dy).first(2)); }).find("2 gradients for 3 results"),
            std::string::npos);
}

TEST(Autograd, RecordsOnlyWhatIsWanted) {
  const Tensor plain = of({1}), x = leaf(plain);
  EXPECT_FALSE(scale(plain, 2).node());
  EXPECT_TRUE(scale(x, 2).node());
  EXPECT_FALSE(scale(x.detach(), 2).node());
  EXPECT_TRUE(record(
                  plain, "linear", {plain}, [](const Tensor&) {}, true)
                  .node());
  {
    NoGrad no_grad;
    EXPECT_FALSE(scale(x, 2).node());
    EXPECT_FALSE(record(
                     plain, "linear", {plain}, [](const Tensor&) {}, true)
                     .node());
    {
      GradMode on(true);
      EXPECT_TRUE(scale(x, 2).node());
    }
    EXPECT_FALSE(scale(x, 2).node());
    std::thread([&] { EXPECT_TRUE(scale(x, 2).node()) << "another thread's"; }).join();
  }
  EXPECT_TRUE(scale(x, 2).node());
  // Closures do not record, even ops with parameters.
  bool recorded = true;
  backward(record(plain, "op", {x},
                  [&](const Tensor& dy) {
                    recorded = bool(record(
                                        dy, "linear", {}, [](const Tensor&) {}, true)
                                        .node());
                  }),
           of({1}));
  EXPECT_FALSE(recorded);
}

TEST(Autograd, NodesWithoutGradientAreLeftOut) {
  const Tensor x = leaf(of({1, 2}));
  bool ran = false;
  const Tensor dead = record(of({1, 2}), "dead", {x}, [&](const Tensor&) { ran = true; });
  const Tensor y = record(of({1, 2}), "stop", {dead}, [](const Tensor&) {});  // passes nothing on
  backward(y, of({1, 1}));
  EXPECT_FALSE(ran);
  EXPECT_FALSE(x.node()->grad.defined());
}

TEST(Autograd, ClosuresAndInnerGradientsAreFreedAsTheyRun) {
  const Tensor x = leaf(of({1}));
  std::vector<std::weak_ptr<int>> alive;
  std::vector<int> alive_when_run;
  Tensor y = x;
  std::vector<NodePtr> nodes;
  for (int i = 0; i < 4; ++i) {
    auto saved = std::make_shared<int>(i);
    alive.push_back(saved);
    y = record(y.detach(), "saves", {y}, [saved, in = y.node(), &alive, &alive_when_run](const Tensor& dy) {
      int n = 0;
      for (const auto& a : alive) n += !a.expired();
      alive_when_run.push_back(n);
      accumulate(in, dy);
    });
    nodes.push_back(y.node());
  }
  backward(y, of({1}));
  EXPECT_EQ(alive_when_run, (std::vector<int>{4, 3, 2, 1}));
  for (const NodePtr& n : nodes) {
    EXPECT_FALSE(n->grad.defined());
    EXPECT_TRUE(n->inputs.empty());
  }
  EXPECT_EQ(grad(x), Values{1});
}

TEST(Autograd, DroppedGraphsAreFreedWithoutRecursion) {
  std::weak_ptr<int> saved;
  {
    Tensor y = leaf(of({1}));
    auto s = std::make_shared<int>(0);
    saved = s;
    for (int i = 0; i < 300000; ++i)
      y = record(y.detach(), "step", {y, y}, [s, in = y.node()](const Tensor& dy) { accumulate(in, dy); });
  }
  EXPECT_TRUE(saved.expired());
}

TEST(Autograd, ASecondBackwardIsAnError) {
  const Tensor x = leaf(of({1}));
  const Tensor h = scale(x, 2);
  backward(scale(h, 3), of({1}));
  EXPECT_NE(thrown([&] { backward(h, of({1})); }).find("scale after its backward has run"),
            std::string::npos);
  EXPECT_NE(thrown([&] { backward(scale(h, 3), of({1})); }).find("scale after its backward has run"),
            std::string::npos);
}

TEST(Autograd, GradientsOfAnotherShapeOrTypeAreRefused) {
  const Tensor y = scale(leaf(of({1, 2})), 2);
  EXPECT_NE(thrown([&] { backward(y, of({1})); }).find("gradient f64 [1] for the result f64 [2] of scale"),
            std::string::npos);
  EXPECT_NE(thrown([&] {
              backward(y, Tensor::of(std::vector<float>{1, 2}));
            }).find("gradient f32 [2]"),
            std::string::npos);
  EXPECT_NE(thrown([&] { backward(y, Tensor()); }).find("gradient an undefined tensor"), std::string::npos);
}

TEST(Autograd, OrderHoldsOverThreads) {
  Tensor x;
  std::thread([&] {
    for (int i = 0; i < 1000; ++i) x = leaf(of({1}));
  }).join();
  Tensor y;
  std::thread([&] { y = add(scale(x, 2), scale(x, 3)); }).join();
  EXPECT_LT(x.node()->order, y.node()->order);
  backward(y, of({1}));
  EXPECT_EQ(grad(x), Values{5});
}

TEST(Autograd, SizeZero) {
  const Tensor x = leaf(Tensor::zeros({0, 3}, DType::f64));
  backward(add(x, scale(x, 2)), Tensor::zeros({0, 3}, DType::f64));
  EXPECT_EQ(x.node()->grad.shape(), (Dims{0, 3}));
}

TEST(SplitColumns, ForwardSharesStorageAndBackwardGathers) {
  const Tensor x = leaf(of({0, 1, 2, 3, 4, 5}, {2, 3}));
  const Tensor h = scale(x, 1);
  const std::vector<Tensor> p = split_columns(h, {1, 2});
  EXPECT_EQ(p[0].raw(), h.raw());
  EXPECT_EQ(p[1].ld(), 3);
  EXPECT_EQ(values(p[1]), (Values{1, 2, 4, 5}));
  const std::array<Tensor, 2> y{scale(p[0], 2), multiply(p[1], p[1])},
      dy{of({1, 10}, {2, 1}), of({1, 1, 1, 1}, {2, 2})};
  backward(y, dy);
  EXPECT_EQ(grad(x), (Values{2, 2, 4, 20, 8, 10}));
}

TEST(SplitColumns, PartlyUsedPartsHaveZeroGradient) {
  const Tensor x = leaf(of({0, 1, 2, 3, 4, 5}, {2, 3}));
  { std::fill_n(Tensor::empty({2, 3}, DType::f64).data<double>(), 6, NAN); }  // reused below: must be cleared
  backward(split_columns(x, {1, 1, 1})[1], of({1, 1}, {2, 1}));
  EXPECT_EQ(grad(x), (Values{0, 1, 0, 0, 1, 0}));
  // No part used: no gradient at all.
  const Tensor z = leaf(of({1, 2}, {1, 2}));
  split_columns(z, {1, 1});
  backward(scale(z, 3), of({1, 1}, {1, 2}));
  EXPECT_EQ(grad(z), (Values{3, 3}));
}

TEST(SplitColumns, NestedAndBesideOtherUses) {
  const Tensor x = leaf(of({0, 1, 2, 3, 4, 5, 6, 7}, {2, 4}));
  const Tensor dx = of({100, 100, 100, 100, 100, 100, 100, 100}, {2, 4});
  const std::vector<Tensor> outer = split_columns(x, {1, 3});
  const std::vector<Tensor> inner = split_columns(outer[1], {2, 1});
  EXPECT_EQ(values(inner[1]), (Values{3, 7}));
  const std::array<Tensor, 4> y{inner[1], outer[1], x, outer[0]},
      dy{of({1, 2}, {2, 1}), of({10, 10, 10, 20, 20, 20}, {2, 3}), dx, of({5, 6}, {2, 1})};
  backward(y, dy);
  EXPECT_EQ(grad(x), (Values{105, 110, 110, 111, 106, 120, 120, 122}));
  EXPECT_EQ(values(dx), Values(8, 100)) << "shared, not ours";
}

TEST(SplitColumns, TheSamePartTwiceAndEmptyParts) {
  const Tensor x = leaf(of({1, 2}, {1, 2}));
  const std::vector<Tensor> p = split_columns(x, {0, 1, 1, 0});
  backward(add(multiply(p[1], p[2]), p[1]), of({1}, {1, 1}));
  EXPECT_EQ(grad(x), (Values{3, 1}));
  const Tensor none = leaf(Tensor::zeros({0, 2}, DType::f64));
  backward(split_columns(none, {1, 1})[0], Tensor::zeros({0, 1}, DType::f64));
  EXPECT_EQ(none.node()->grad.shape(), (Dims{0, 2}));
  EXPECT_FALSE(split_columns(x.detach(), {1, 1})[0].node());
  EXPECT_NE(thrown([&] { split_columns(x, {1}); }).find("parts [1] of the columns of f64 [1, 2]"),
            std::string::npos);
  EXPECT_NE(thrown([&] {
              split_columns(x, {1, 2});
            }).find("2 columns from 1 of f64 [1, 2]"),
            std::string::npos);
}

// Blocks of three ops with two inputs; `again` recomputes each.
Tensor blocks(Tensor x, const Tensor& w, int n, bool again) {
  const auto block = [](const std::vector<Tensor>& in) {
    return add(in[0], square_tanh(multiply(square_tanh(in[0]), in[1])));
  };
  for (int i = 0; i < n; ++i) x = again ? recompute(block, {x, w}) : block({x, w});
  return x;
}

TEST(Recompute, EqualsPlainBitForBit) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  Values a(100), b(100), d(100);
  for (Values* v : {&a, &b, &d})
    for (double& e : *v) e = normal(random);
  Values y[2], dx[2], dw[2];
  for (int again : {0, 1}) {
    const Tensor x = leaf(of(a)), w = leaf(of(b));
    const Tensor out = blocks(x, w, 5, again);
    y[again] = values(out);
    backward(out, of(d));
    dx[again] = grad(x);
    dw[again] = grad(w);
  }
  EXPECT_EQ(y[0], y[1]);
  EXPECT_EQ(dx[0], dx[1]);
  // A sum over blocks: each block adds one term, in the same order.
  EXPECT_EQ(dw[0], dw[1]);
}

TEST(Recompute, FreesWhatIsInsideABlock) {
  constexpr int kBlocks = 16;
  constexpr int64_t kElements = 4096, kBytes = kElements * 8;  // a size class
  int64_t held[2], peak[2];
  for (int again : {0, 1}) {
    MemoryLabel label(again ? "recompute" : "plain");
    const auto of_label = [&] { return memory_statistics()[again ? "recompute" : "plain"]; };
    {
      const Tensor x = leaf(of(Values(kElements, 0.5))), w = leaf(of(Values(kElements, 0.25)));
      const Tensor y = blocks(x, w, kBlocks, again);
      held[again] = of_label().current;
      backward(y, of(Values(kElements, 1)));
      peak[again] = of_label().peak;
    }
    EXPECT_EQ(of_label().current, 0) << "all is freed";
  }
  // x, w and the result of every block; plain, the result of square_tanh and of multiply too.
  EXPECT_EQ(held[1], (kBlocks + 2) * kBytes);
  EXPECT_EQ(held[0], (3 * kBlocks + 2) * kBytes);
  // Backward adds some gradients, and the inside of one block.
  EXPECT_LE(peak[1], held[1] + 12 * kBytes);
  EXPECT_GE(peak[0], held[0]);
}

TEST(Recompute, NestedMixedAndWithoutGradient) {
  const Tensor x = leaf(of({2})), plain = of({5});
  int runs = 0;
  const auto inner = [&](const std::vector<Tensor>& in) {
    ++runs;
    return multiply(in[0], in[1]);
  };
  const auto outer = [&](const std::vector<Tensor>& in) {
    return add(recompute(inner, {in[0], in[1]}), scale(in[0], 3));
  };
  const Tensor y = recompute(outer, {x, plain});  // 5 x + 3 x
  EXPECT_EQ(values(y), Values{16});
  EXPECT_EQ(runs, 1);
  {
    NoGrad no_grad;  // of the caller: backward differentiates all the same
    backward(y, of({1}));
  }
  EXPECT_EQ(runs, 3) << "forward, when the outer runs again, when the inner does";
  EXPECT_EQ(grad(x), Values{8});
  // The same input twice, and one that is its own result.
  const Tensor z = leaf(of({3}));
  backward(recompute(inner, {z, z}), of({1}));
  backward(recompute([](const std::vector<Tensor>& in) { return in[0]; }, {z}), of({1}));
  EXPECT_EQ(grad(z), Values{7});
  EXPECT_FALSE(recompute(inner, {plain, plain}, false).node()) << "a frozen block of plain inputs";
  EXPECT_TRUE(recompute(inner, {plain, plain}).node()) << "its parameters may want gradients";
  NoGrad no_grad;
  EXPECT_FALSE(recompute(inner, {x, x}).node());
}

TEST(Recompute, InputsMayBePartsOfASplit) {
  const Tensor x = leaf(of({1, 2, 3, 4}, {2, 2}));
  const std::vector<Tensor> p = split_columns(x, {1, 1});
  backward(recompute([](const std::vector<Tensor>& in) { return multiply(in[0], in[1]); }, p),
           of({1, 1}, {2, 1}));
  EXPECT_EQ(grad(x), (Values{2, 1, 4, 3}));
}

}  // namespace
}  // namespace mimo
