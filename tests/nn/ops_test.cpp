// Every autograd op is a row of a table: gradients of its inputs and parameters against central differences
// in double, results and gradients in f32 and bf16 against double, frozen parameters, column slices as
// inputs; each over ragged batches with empty sequences, one token, and nothing at all.
#include "nn/ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <ostream>
#include <random>

#include "parallel/collectives.h"
#include "tests/kernels/gradcheck.h"

namespace mimo {
namespace {

using Tensors = std::vector<Tensor>;
using Parameters = std::vector<Parameter>;
using Column = std::vector<double>;

struct Op {
  std::string name;
  std::vector<Dims> inputs;
  std::vector<Dims> parameters;
  std::function<Tensor(const Tensors&, Parameters&)> f;
  bool full = false;  // parameters in acc_of(dtype)
};

// What the ops run on.
struct Batch {
  std::string name;
  std::vector<int32_t> cu, image_cu, image_sizes;
  Batch(std::string n, const std::vector<int>& lengths, const std::vector<std::array<int, 2>>& images)
      : name(std::move(n)), cu{0}, image_cu{0} {
    for (int l : lengths) cu.push_back(cu.back() + l);
    for (const auto& [h, w] : images) {
      image_cu.push_back(image_cu.back() + h * w);
      image_sizes.insert(image_sizes.end(), {1, h, w});
    }
  }
  int64_t tokens() const { return cu.back(); }
  int64_t patches() const { return image_cu.back(); }
  int images() const { return static_cast<int>(image_cu.size()) - 1; }
  Sequences sequences() const {
    std::vector<int32_t> positions;
    for (size_t s = 0; s + 1 < cu.size(); ++s)
      for (int t = 0; t < cu[s + 1] - cu[s]; ++t) positions.push_back(t);
    return mimo::sequences(cu, positions);
  }
  ImageGrids grids() const { return image_grids(image_sizes); }
};

void PrintTo(const Batch& b, std::ostream* out) { *out << b.name; }

Tensor copy_of(const Tensor& x) { return add(x, Tensor::zeros(x.shape(), x.dtype())); }

std::vector<Op> table(const Batch& b) {
  const int64_t t = b.tokens(), p = b.patches();
  const Sequences seqs = b.sequences();
  const ImageGrids grids = b.grids();
  std::vector<int32_t> ids, labels, odd;
  for (int32_t i = 0; i < t; ++i) {
    ids.push_back((i * 5) % 9 - 1);  // outside the rows 2 to 6 held here too, and none
    labels.push_back((i * 5) % 8 - 1);
    if (i % 2) odd.push_back(i);
  }
  const auto rows = [](const std::vector<int32_t>& v) { return Tensor::of(v); };
  std::vector<Op> ops = {
      {"linear", {{t, 5}}, {{7, 5}}, [](const Tensors& x, Parameters& w) { return linear(x[0], w[0]); }},
      {"linear with bias",
       {{2, t, 5}},
       {{7, 5}, {7}},
       [](const Tensors& x, Parameters& w) { return linear(x[0], w[0], &w[1]); }},
      {"add_bias", {{t, 5}}, {{5}}, [](const Tensors& x, Parameters& w) { return add_bias(x[0], w[0]); }},
      {"add", {{t, 5}, {t, 5}}, {}, [](const Tensors& x, Parameters&) { return add(x[0], x[1]); }},
      {"add to itself", {{t, 5}}, {}, [](const Tensors& x, Parameters&) { return add(x[0], x[0]); }},
      {"rms_norm",
       {{t, 12}},
       {{12}},
       [](const Tensors& x, Parameters& w) { return rms_norm(x[0], w[0], 1e-2); }},
      {"layer_norm",
       {{t, 12}},
       {{12}, {12}},
       [](const Tensors& x, Parameters& w) { return layer_norm(x[0], w[0], w[1], 1e-2); }},
      {"swiglu", {{t, 10}}, {}, [](const Tensors& x, Parameters&) { return swiglu(x[0]); }},
      {"causal_conv",
       {{t, 6}},
       {{6, 1, 4}, {6}},
       [=](const Tensors& x, Parameters& w) { return causal_conv(x[0], w[0], w[1], seqs); }},
      {"selective_scan",
       {{t, 6}, {t, 6}, {t, 3}, {t, 3}, {t, 6}},
       {{6}, {6, 3}, {6}},
       [=](const Tensors& x, Parameters& w) {
         return selective_scan(x[0], x[1], x[2], x[3], x[4], w[0], w[1], w[2], seqs);
       },
       true},
      {"embedding",
       {},
       {{5, 4}},
       [=](const Tensors&, Parameters& w) { return embedding(rows(ids), w[0], 2); }},
      {"gather_rows",
       {{t, 4}},
       {},
       [=](const Tensors& x, Parameters&) { return gather_rows(x[0], rows(odd)); }},
      {"place_rows",
       {{static_cast<int64_t>(odd.size()), 4}},
       {{8, 4}},
       [=](const Tensors& x, Parameters& w) {
         std::vector<int32_t> text = ids;
         for (int32_t i : odd) text[i] = -1;
         return place_rows(embedding(rows(text), w[0], 0), x[0], rows(odd));
       }},
      {"cross_entropy",
       {{t, 7}},
       {},
       [=](const Tensors& x, Parameters&) {
         return cross_entropy(copy_of(x[0]), rows(labels), 0, nullptr).loss_sum;
       }},
      {"add_positions",
       {{p, 4}},
       {{25, 4}},
       [=](const Tensors& x, Parameters& w) { return add_positions(x[0], w[0], 5, grids); }},
      {"pixel_shuffle",
       {{p, 3}},
       {},
       [=](const Tensors& x, Parameters&) { return pixel_shuffle(x[0], grids); }},
      {"prepend_class_tokens",
       {{p, 4}},
       {{3, 4}},
       [=](const Tensors& x, Parameters& w) { return prepend_class_tokens(x[0], w[0], grids); }},
      {"drop_class_tokens",
       {{p + 2 * b.images(), 4}},
       {},
       [=](const Tensors& x, Parameters&) { return drop_class_tokens(x[0], 2, grids); }},
      {"drop no class tokens",
       {{p, 4}},
       {},
       [=](const Tensors& x, Parameters&) { return drop_class_tokens(x[0], 0, grids); }},
      {"copy_to_group",
       {{t, 4}},
       {},
       [](const Tensors& x, Parameters&) { return copy_to_group(x[0], nullptr); }},
      {"reduce_from_group",
       {{t, 4}},
       {},
       [](const Tensors& x, Parameters&) { return reduce_from_group(x[0], nullptr); }},
  };
  for (const auto& [name, kind] : {std::pair{"relu2", ActivationKind::relu2},
                                   {"gelu_erf", ActivationKind::gelu_erf},
                                   {"gelu_tanh", ActivationKind::gelu_tanh},
                                   {"quick_gelu", ActivationKind::quick_gelu},
                                   {"silu", ActivationKind::silu}})
    ops.push_back({name, {{t, 5}}, {}, [kind = kind](const Tensors& x, Parameters&) {
                     return activation(x[0], kind);
                   }});
  for (const bool causal : {false, true})
    for (const double theta : {0.0, 100.0}) {
      const AttentionShape shape{4, 2, 8, causal, theta};
      ops.push_back({std::string(causal ? "causal" : "full") + (theta > 0 ? " rotary" : "") + " attention",
                     {{t, 64}},
                     {},
                     [=](const Tensors& x, Parameters&) { return attention(x[0], shape, seqs); }});
    }
  return ops;
}

// Mamba-2 has parameters of both precisions; its op is a row of its own.
const Mamba2Shape kMamba2{4, 4, 2, 3, 4, 4};
Op mamba2_op(const Batch& b) {
  const Sequences seqs = b.sequences();
  return {"mamba2",
          {{b.tokens(), kMamba2.projected()}},
          {{kMamba2.conv(), 1, 4}, {kMamba2.conv()}, {4}, {4}, {4}, {kMamba2.inner()}},
          [seqs](const Tensors& x, Parameters& w) {
            return mamba2(x[0], kMamba2, {&w[0], &w[1], &w[2], &w[3], &w[4], &w[5]}, 1.0, seqs);
          }};
}
bool is_full(const Op& op, size_t parameter) {
  return op.full || (op.name == "mamba2" && parameter >= 2 && parameter <= 4);
}

Tensor tensor_of(const Column& values, const Dims& shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype);
  dispatch(dtype, [&]<class T>() {
    for (size_t i = 0; i < values.size(); ++i) t.data<T>()[i] = T(static_cast<acc_t<T>>(values[i]));
  });
  return t;
}
Column values_of(const Tensor& t) {
  Column v;
  dispatch(t.dtype(), [&]<class T>() {
    for (T x : t.to_vector<T>()) v.push_back(static_cast<double>(x));
  });
  return v;
}
Column rounded(const Column& v, DType dtype) {
  return values_of(tensor_of(v, {static_cast<int64_t>(v.size())}, dtype));
}

Column random_column(int64_t n, int seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  Column v(n);
  for (double& x : v) x = normal(random);
  return v;
}

struct Values {
  std::vector<Column> inputs, parameters;
  Column dy;
};
struct Result {
  Column y;
  std::vector<Column> inputs, parameters;  // gradients
  bool recorded = false;
};

// trainable: bit i is parameter i's.
Parameters make_parameters(const Op& op, const Values& v, DType dtype, unsigned trainable) {
  Parameters w(op.parameters.size());
  for (size_t i = 0; i < w.size(); ++i) {
    w[i].name = "w" + std::to_string(i);
    w[i].shape = op.parameters[i];
    w[i].shard = whole(w[i].shape);
    w[i].trainable = trainable >> i & 1;
    materialize(w[i], is_full(op, i) ? acc_of(dtype) : dtype, 0);
    w[i].value = tensor_of(v.parameters[i], w[i].shape, w[i].value.dtype());
  }
  return w;
}

struct Run {
  unsigned trainable = ~0u;
  bool leaves = true;    // inputs want gradients
  bool strided = false;  // inputs are column slices
};

Result run(const Op& op, DType dtype, const Values& v, Run how = {}) {
  Tensors leaves, x;
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    Tensor in = tensor_of(v.inputs[i], op.inputs[i], dtype);
    if (how.strided) {
      Dims wide = in.shape();
      wide.back() += 5;
      const Tensor all = Tensor::zeros(wide, dtype);
      copy_into(all.columns(3, in.cols()), in);
      leaves.push_back(leaf(all));
      x.push_back(split_columns(leaves.back(), {3, in.cols(), 2})[1]);
    } else {
      leaves.push_back(how.leaves ? leaf(in) : in);
      x.push_back(leaves.back());
    }
  }
  Parameters w = make_parameters(op, v, dtype, how.trainable);
  Result r;
  const Tensor y = op.f(x, w);
  r.y = values_of(y);
  r.recorded = y.node() != nullptr;
  if (r.recorded) backward(y, tensor_of(v.dy, y.shape(), y.dtype()));
  for (size_t i = 0; i < leaves.size(); ++i) {
    const NodePtr& node = leaves[i].node();
    if (!node || !node->grad.defined()) continue;
    r.inputs.push_back(values_of(how.strided ? contiguous(node->grad.columns(3, x[i].cols())) : node->grad));
  }
  for (const Parameter& p : w)
    if (p.grad.defined()) r.parameters.push_back(values_of(p.grad));
  return r;
}

Values random_values(const Op& op) {
  Values v;
  int seed = 1;
  for (const Dims& d : op.inputs) v.inputs.push_back(random_column(numel(d), seed++));
  for (const Dims& d : op.parameters) v.parameters.push_back(random_column(numel(d), seed++));
  v.dy = {};
  const Result r = run(op, DType::f64, v, {.trainable = 0, .leaves = false});
  v.dy = random_column(static_cast<int64_t>(r.y.size()), seed);
  return v;
}

double rms_difference(const Column& a, const Column& b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum / static_cast<double>(std::max<size_t>(1, a.size())));
}

std::vector<std::pair<std::string, Column>> all(const Result& r) {
  std::vector<std::pair<std::string, Column>> c{{"y", r.y}};
  for (size_t i = 0; i < r.inputs.size(); ++i) c.emplace_back("dx" + std::to_string(i), r.inputs[i]);
  for (size_t i = 0; i < r.parameters.size(); ++i) c.emplace_back("dw" + std::to_string(i), r.parameters[i]);
  return c;
}

class Ops : public testing::TestWithParam<Batch> {
 protected:
  template <class F>
  void for_each(F&& f) {
    std::vector<Op> ops = table(GetParam());
    ops.push_back(mamba2_op(GetParam()));
    for (const Op& op : ops) {
      SCOPED_TRACE(op.name);
      f(op, random_values(op));
    }
  }
};

TEST_P(Ops, GradientsAreCentralDifferences) {
  for_each([](const Op& op, const Values& v) {
    const Result r = run(op, DType::f64, v);
    Values at = v;
    const auto functional = [&] {
      const Column y = run(op, DType::f64, at, {.trainable = 0, .leaves = false}).y;
      double sum = 0;
      for (size_t i = 0; i < y.size(); ++i) sum += v.dy[i] * y[i];
      return sum;
    };
    for (size_t i = 0; i < r.inputs.size(); ++i)
      op_test::check_gradient(functional, at.inputs[i], r.inputs[i], ("dx" + std::to_string(i)).c_str());
    ASSERT_EQ(r.parameters.size(), v.parameters.size());
    for (size_t i = 0; i < r.parameters.size(); ++i)
      op_test::check_gradient(functional, at.parameters[i], r.parameters[i],
                              ("dw" + std::to_string(i)).c_str());
  });
}

// Whoever computes in a precision rounds the inputs and the result: that error is measured in double, and an
// op may have twice as much for what it rounds on the way. Sums are taken in fp32, which bf16 does not
// notice; in f32 each of up to 24 partial sums is rounded too.
TEST_P(Ops, LowPrecisionIsAsGoodAsRounding) {
  for_each([](const Op& op, const Values& v) {
    const auto exact = all(run(op, DType::f64, v));
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Values low = v;
      for (Column& c : low.inputs) c = rounded(c, dtype);
      for (size_t i = 0; i < low.parameters.size(); ++i)
        low.parameters[i] = rounded(low.parameters[i], is_full(op, i) ? acc_of(dtype) : dtype);
      low.dy = rounded(low.dy, op.name == "cross_entropy" ? acc_of(dtype) : dtype);
      const auto best = all(run(op, DType::f64, low)), got = all(run(op, dtype, v));
      ASSERT_EQ(got.size(), exact.size());
      for (size_t i = 0; i < got.size(); ++i) {
        const auto& [what, values] = got[i];
        const bool in_acc = what.starts_with("dw") || (op.name == "cross_entropy" && what == "y");
        const Column ideal = rounded(best[i].second, in_acc ? acc_of(dtype) : dtype);
        const double roundings = dtype == DType::f32 ? 24 : 1;
        EXPECT_LE(rms_difference(values, exact[i].second),
                  2 * roundings * rms_difference(ideal, exact[i].second))
            << what << " in " << name_of(dtype);
      }
    }
  });
}

TEST_P(Ops, FrozenParametersTakeNothingAndChangeNothing) {
  for_each([](const Op& op, const Values& v) {
    const Result free = run(op, DType::f32, v);
    for (unsigned trainable = 0; trainable < 1u << op.parameters.size(); ++trainable) {
      SCOPED_TRACE(trainable);
      std::vector<Column> wanted;
      for (size_t i = 0; i < op.parameters.size(); ++i)
        if (trainable >> i & 1) wanted.push_back(free.parameters[i]);
      const Result some = run(op, DType::f32, v, {.trainable = trainable});
      EXPECT_EQ(some.y, free.y);
      EXPECT_EQ(some.inputs, free.inputs);
      EXPECT_EQ(some.parameters, wanted);
      const Result alone = run(op, DType::f32, v, {.trainable = trainable, .leaves = false});
      EXPECT_EQ(alone.recorded, trainable != 0);
      EXPECT_EQ(alone.parameters, wanted);
    }
  });
}

TEST_P(Ops, TakeColumnSlices) {
  for_each([](const Op& op, const Values& v) {
    const Result dense = run(op, DType::f32, v), slices = run(op, DType::f32, v, {.strided = true});
    EXPECT_EQ(slices.y, dense.y);
    EXPECT_EQ(slices.inputs, dense.inputs);
    EXPECT_EQ(slices.parameters, dense.parameters);
  });
}

INSTANTIATE_TEST_SUITE_P(Batches, Ops,
                         testing::Values(Batch("ragged", {0, 1, 7, 0, 4}, {{2, 4}, {6, 2}, {2, 2}}),
                                         Batch("one", {1}, {{2, 2}}), Batch("empty_sequences", {0, 0}, {}),
                                         Batch("nothing", {}, {})),
                         [](const auto& p) { return p.param.name; });

TEST(OpShapes, RefuseWhatDoesNotFit) {
  Values none{{}, {Column(35, 0.0)}, {}};
  Parameters w = make_parameters({"linear", {}, {{7, 5}}, {}}, none, DType::f32, 1);
  const Tensor x = Tensor::zeros({3, 4}, DType::f32), y = Tensor::zeros({2, 4}, DType::f32);
  EXPECT_ANY_THROW(linear(x, w[0]));
  EXPECT_ANY_THROW(add(x, y));
  EXPECT_ANY_THROW(place_rows(x, y, Tensor::of(std::vector<int32_t>{1})));
  EXPECT_ANY_THROW(attention(x, {1, 1, 8, true}, sequences({0, 3})));
  EXPECT_ANY_THROW(mamba2(x, kMamba2, {}, 1e-5, sequences({0, 3})));
}

TEST(CrossEntropy, CountsRowsWithALabelAndFindsTheLargestLogit) {
  const Tensor logits = Tensor::of(std::vector<float>{1, 3, 2, 0, 0, 0, 5, 4, 5}, {3, 3});
  const Tensor total = Tensor::of(std::vector<double>{10});
  const CrossEntropyResult r =
      cross_entropy(logits, Tensor::of(std::vector<int32_t>{1, -1, 0}), 0, nullptr, total);
  EXPECT_EQ(r.argmax.to_vector<int32_t>(), (std::vector<int32_t>{1, 0, 0}));
  const double expected = std::log(std::exp(-2.0) + 1 + std::exp(-1.0)) + std::log(2 + std::exp(-1.0));
  EXPECT_NEAR(r.loss_sum.data<float>()[0], expected, 1e-6);
  EXPECT_NEAR(total.data<double>()[0], 10 + expected, 1e-6);
}

}  // namespace
}  // namespace mimo
