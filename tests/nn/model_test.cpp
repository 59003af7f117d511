// The whole model in double: gradients against central differences, stages against the undivided model,
// recompute.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/nn/tiny.h"

namespace mimo {
namespace {

// Vision and language, whole.
struct Model {
  std::unique_ptr<Stage> vision, language;
  explicit Model(const ModelSpec& spec)
      : vision(make_stage(spec, 0, {}, 0, {}, nullptr)), language(make_stage(spec, 1, {}, 0, {}, nullptr)) {}
  Model(const std::string& pattern, DType dtype, std::vector<std::string> overrides = {})
      : Model(tiny::model(pattern, dtype, std::move(overrides))) {}
  Tensor loss(const PackedBatch& b) const {
    Sums sums({"loss"});
    Step step(sums);
    const std::vector<Tensor> features = vision->forward({}, b, step);
    EXPECT_TRUE(language->forward(features, b, step).empty());
    return step.losses().at(0);
  }
  std::vector<Parameter*> parameters() const {
    std::vector<Parameter*> p = vision->parameters();
    for (Parameter* q : language->parameters()) p.push_back(q);
    return p;
  }
};

double value(const Tensor& t) {
  return t.dtype() == DType::f64 ? t.data<double>()[0] : double(t.data<float>()[0]);
}

class ModelGradient : public testing::TestWithParam<std::string> {};

TEST_P(ModelGradient, MatchesCentralDifferencesInEveryParameter) {
  const Model m(GetParam(), DType::f64);
  const PackedBatch b = tiny::batch(DType::f64);
  const Tensor loss = m.loss(b);
  backward(loss, Tensor::of(std::vector<double>{1}));
  NoGrad no_grad;
  for (Parameter* p : m.parameters()) {
    const int64_t n = p->value.numel();
    for (int64_t i : {int64_t{0}, n / 3, n - 1}) {
      double& x = p->value.data<double>()[i];
      const double x0 = x, h = 1e-6;
      x = x0 + h;
      const double above = value(m.loss(b));
      x = x0 - h;
      const double below = value(m.loss(b));
      x = x0;
      const double expected = (above - below) / (2 * h), got = p->grad.data<double>()[i];
      // Rounding, some 10 |loss| eps / h, and truncation, h^2 f'''/6 with f''' up to 1e8 here, are below
      // 1e-7.
      EXPECT_NEAR(got, expected, 1e-6 * std::max(1.0, std::abs(expected))) << p->name << "[" << i << "]";
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Patterns, ModelGradient, testing::Values("M", "*", "-", "S", "M-M*-", "*S-M"));

TEST(Model, StagesChainedEqualTheWhole) {
  const PackedBatch b = tiny::batch(DType::f64);
  const ModelSpec spec = tiny::model("M-|*M", DType::f64);
  const Model whole(spec);
  const Tensor expected = whole.loss(b);
  backward(expected, Tensor::of(std::vector<double>{1}));

  const Grid two{.pp = 2};
  const auto stage = [&](int module, int s) { return make_stage(spec, module, two, s, {}, nullptr); };
  const auto v0 = stage(0, 0), v1 = stage(0, 1), l0 = stage(1, 0), l1 = stage(1, 1);
  Sums sums({"loss"});
  Step step(sums);
  std::vector<int> ready;
  step.when_ready([&](int part) { ready.push_back(part); });
  const auto pass = [&](Stage& s, const Tensor& in) { return s.forward(std::span(&in, 1), b, step).at(0); };
  const Tensor a = v0->forward({}, b, step).at(0), la = leaf(a);
  const Tensor f = pass(*v1, la), lf = leaf(f);
  const Tensor h = pass(*l0, lf), lh = leaf(h);
  EXPECT_TRUE(l1->forward(std::span(&lh, 1), b, step).empty());
  const Tensor loss = step.losses().at(0);
  EXPECT_DOUBLE_EQ(value(loss), value(expected));
  sums.settle();
  EXPECT_DOUBLE_EQ(sums["loss"], value(loss));
  backward(loss, Tensor::of(std::vector<double>{1}));
  EXPECT_EQ(ready, (std::vector{5, 4, 3}));  // the head, then the layers from the last
  backward(h, lh.node()->grad);
  EXPECT_EQ(ready, (std::vector{5, 4, 3, 2, 1}));
  backward(f, lf.node()->grad);
  backward(a, la.node()->grad);

  std::map<std::string, Parameter*> parts;
  for (Stage* part : {v0.get(), v1.get(), l0.get(), l1.get()})
    for (Parameter* p : part->parameters())
      EXPECT_TRUE(parts.emplace(p->name, p).second) << p->name << " twice";
  ASSERT_EQ(parts.size(), whole.parameters().size());
  for (Parameter* p : whole.parameters()) {
    ASSERT_TRUE(parts.count(p->name)) << p->name;
    EXPECT_EQ(parts[p->name]->value.to_vector<double>(), p->value.to_vector<double>()) << p->name;
    EXPECT_EQ(parts[p->name]->grad.to_vector<double>(), p->grad.to_vector<double>()) << p->name;
  }
}

TEST(Model, RecomputeGivesTheSameBits) {
  const PackedBatch b = tiny::batch(DType::f32);
  const Model plain("M-*S", DType::f32), saving("M-*S", DType::f32, {"--train.recompute=true"});
  for (const Model* m : {&plain, &saving}) backward(m->loss(b), Tensor::of(std::vector<float>{1}));
  const auto p = plain.parameters(), q = saving.parameters();
  for (size_t i = 0; i < p.size(); ++i)
    EXPECT_EQ(p[i]->grad.to_vector<float>(), q[i]->grad.to_vector<float>()) << p[i]->name;
}

// Whatever is frozen, the rest has the gradients that it has otherwise.
TEST(Model, WhatIsFrozenTakesNoGradientButPassesIt) {
  using Strings = std::vector<std::string>;
  const PackedBatch b = tiny::batch(DType::f64);
  const Model free("M-*S", DType::f64);
  backward(free.loss(b), Tensor::of(std::vector<double>{1}));
  struct Row {
    Strings overrides;
    std::function<bool(const std::string&)> trained;
  };
  const std::vector<Row> rows = {
      {{"--train.freeze=language.*"}, [](const std::string& n) { return n.starts_with("vision."); }},
      {{"--train.freeze=vision.*,language.*", "--train.unfreeze=vision.projector.*"},
       [](const std::string& n) { return n.starts_with("vision.projector."); }},
      {{"--train.freeze=*.weight"}, [](const std::string& n) { return !n.ends_with(".weight"); }},
      {{"--train.freeze=*.bias"}, [](const std::string& n) { return !n.ends_with(".bias"); }},
      {{"--train.freeze=language.layers.2.*", "--train.recompute=true"},
       [](const std::string& n) { return !n.starts_with("language.layers.2."); }},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.overrides[0]);
    const Model m("M-*S", DType::f64, row.overrides);
    backward(m.loss(b), Tensor::of(std::vector<double>{1}));
    const auto p = free.parameters(), q = m.parameters();
    ASSERT_EQ(p.size(), q.size());
    int trained = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      EXPECT_EQ(q[i]->grad.defined(), row.trained(q[i]->name)) << q[i]->name;
      if (!q[i]->grad.defined()) continue;
      ++trained;
      EXPECT_EQ(p[i]->grad.to_vector<double>(), q[i]->grad.to_vector<double>()) << p[i]->name;
    }
    EXPECT_GT(trained, 0);
  }
}

// An encoder that also enters before a later layer: gradients add at its output.
TEST(Model, ASecondEntranceAddsToTheStream) {
  const PackedBatch b = tiny::batch(DType::f64);
  const ModelSpec spec = tiny::model("M-*", DType::f64, {"--edges.vision=language,language.image@2"});
  ASSERT_EQ(spec.edges.size(), 2u);
  EXPECT_EQ(spec[1].inputs()[1].part, 3);
  const Model m(spec);
  const auto loss = [&] {
    Sums sums({"loss"});
    Step step(sums);
    const Tensor features = m.vision->forward({}, b, step).at(0);
    m.language->forward(std::vector{features, features}, b, step);
    return step.losses().at(0);
  };
  backward(loss(), Tensor::of(std::vector<double>{1}));
  NoGrad no_grad;
  for (Parameter* p : m.vision->parameters()) {
    double& x = p->value.data<double>()[0];
    const double x0 = x, h = 1e-6;
    x = x0 + h;
    const double above = value(loss());
    x = x0 - h;
    const double below = value(loss());
    x = x0;
    const double expected = (above - below) / (2 * h);
    EXPECT_NEAR(p->grad.data<double>()[0], expected, 1e-6 * std::max(1.0, std::abs(expected))) << p->name;
  }
}

TEST(Model, BatchWithoutImagesIsOrdinary) {
  PackedBatch b = tiny::batch(DType::f32);
  b.items[0].patches = Tensor::empty({0, 4}, DType::f32);
  b.items[0].sizes.clear();
  b.items[0].rows.clear();
  b.items[0].cu_items = {0};
  const Model m("M*", DType::f32);
  const Tensor loss = m.loss(b);
  backward(loss, Tensor::of(std::vector<float>{1}));
  EXPECT_TRUE(std::isfinite(value(loss)));
  for (Parameter* p : m.vision->parameters())
    for (float g : p->grad.to_vector<float>()) EXPECT_EQ(g, 0) << p->name;
}

// A video is as many images as it has frames.
TEST(Model, FramesOfAVideoAreImages) {
  const ModelSpec spec = tiny::model("-", DType::f64);
  const auto features = [&](std::vector<int32_t> sizes, std::vector<int32_t> cu) {
    PackedBatch b = tiny::batch(DType::f64);
    b.items[0].sizes = std::move(sizes);
    b.items[0].cu_items = std::move(cu);
    b.items[0].patches = b.items[0].patches.slice(0, 24);
    Sums sums(spec.sums());
    Step step(sums);
    return make_stage(spec, 0, {}, 0, {}, nullptr)->forward({}, b, step).at(0).to_vector<double>();
  };
  const auto video = features({2, 2, 6}, {0, 24});
  EXPECT_EQ(video, features({1, 2, 6, 1, 2, 6}, {0, 12, 24}));
  EXPECT_NE(video, features({1, 4, 6}, {0, 24}));
}

}  // namespace
}  // namespace mimo
