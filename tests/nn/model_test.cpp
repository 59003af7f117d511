// The whole model in double: gradients against central differences, stages against the undivided model,
// recompute.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/nn/tiny.h"

namespace mimo {
namespace {

struct Model {
  std::unique_ptr<Stage> vision;
  std::unique_ptr<LanguageStage> language;
  Model(const std::string& pattern, DType dtype, bool recompute = false) {
    const VitOptions v = tiny::vit();
    const HybridOptions h = tiny::hybrid(pattern);
    vision = make_vit_stage(v, tiny::context("vision", dtype), 0, v.layers, recompute);
    language = make_hybrid_stage(h, tiny::context("language", dtype), 0,
                                 static_cast<int>(layer_symbols(pattern).size()), recompute);
  }
  Tensor loss(const PackedBatch& b) const {
    Statistics s;
    const Tensor features = vision->forward({}, b, s);
    return language->forward(std::span(&features, 1), b, s);
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
  const HybridOptions o = tiny::hybrid("M-*M");
  const VitOptions v = tiny::vit();
  const Model whole("M-*M", DType::f64);
  const Tensor expected = whole.loss(b);
  backward(expected, Tensor::of(std::vector<double>{1}));

  auto v0 = make_vit_stage(v, tiny::context("vision", DType::f64), 0, 1, false);
  auto v1 = make_vit_stage(v, tiny::context("vision", DType::f64), 1, 2, false);
  auto l0 = make_hybrid_stage(o, tiny::context("language", DType::f64), 0, 2, false);
  auto l1 = make_hybrid_stage(o, tiny::context("language", DType::f64), 2, 4, false);
  Statistics s;
  const auto pass = [&](Stage& stage, const Tensor& in) { return stage.forward(std::span(&in, 1), b, s); };
  const Tensor a = v0->forward({}, b, s), la = leaf(a);
  const Tensor f = pass(*v1, la), lf = leaf(f);
  const Tensor h = pass(*l0, lf), lh = leaf(h);
  const Tensor loss = pass(*l1, lh);
  EXPECT_DOUBLE_EQ(value(loss), value(expected));
  s.settle();
  EXPECT_DOUBLE_EQ(s.loss_sum, value(loss));
  backward(loss, Tensor::of(std::vector<double>{1}));
  backward(h, lh.node()->grad);
  backward(f, lf.node()->grad);
  backward(a, la.node()->grad);

  std::map<std::string, Parameter*> parts;
  for (Stage* stage : {v0.get(), v1.get(), static_cast<Stage*>(l0.get()), static_cast<Stage*>(l1.get())})
    for (Parameter* p : stage->parameters())
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
  const Model plain("M-*S", DType::f32), saving("M-*S", DType::f32, true);
  for (const Model* m : {&plain, &saving}) backward(m->loss(b), Tensor::of(std::vector<float>{1}));
  const auto p = plain.parameters(), q = saving.parameters();
  for (size_t i = 0; i < p.size(); ++i)
    EXPECT_EQ(p[i]->grad.to_vector<float>(), q[i]->grad.to_vector<float>()) << p[i]->name;
}

TEST(Model, FrozenModuleTakesNoGradientButPassesIt) {
  const PackedBatch b = tiny::batch(DType::f64);
  const HybridOptions o = tiny::hybrid("M-*S");
  ModuleContext frozen = tiny::context("language", DType::f64);
  frozen.trainable = false;
  auto language = make_hybrid_stage(o, frozen, 0, 4, false);
  const Model free("M-*S", DType::f64);
  backward(free.loss(b), Tensor::of(std::vector<double>{1}));
  const Model other("M-*S", DType::f64);
  Statistics s;
  const Tensor features = other.vision->forward({}, b, s);
  backward(language->forward(std::span(&features, 1), b, s), Tensor::of(std::vector<double>{1}));
  for (Parameter* p : language->parameters()) EXPECT_FALSE(p->grad.defined()) << p->name;
  const auto p = free.vision->parameters(), q = other.vision->parameters();
  for (size_t i = 0; i < p.size(); ++i)
    EXPECT_EQ(p[i]->grad.to_vector<double>(), q[i]->grad.to_vector<double>()) << p[i]->name;
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

}  // namespace
}  // namespace mimo
