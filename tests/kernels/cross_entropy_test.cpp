#include "kernels/cross_entropy.h"

#include <functional>

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

constexpr double kDLoss = 0.375;

// The three steps over slices of the vocabulary, as ranks would run them.
template <class T>
struct Split {
  using A = acc_t<T>;
  int64_t rows;
  std::vector<int64_t> first;  // column bounds: slice s holds [first[s], first[s + 1])
  std::vector<int32_t> labels;
  std::vector<Matrix<T>> slices;
  std::vector<A> max, sum, target, loss;
  std::vector<int32_t> arg;
  double total = 1;  // added to
  A value = 0;

  Split(int64_t r, std::vector<int64_t> bounds, std::vector<int32_t> y, const std::vector<double>& logits)
      : rows(r), first(std::move(bounds)), labels(std::move(y)), loss(r) {
    const int64_t vocab = first.back();
    for (size_t s = 0; s + 1 < first.size(); ++s) {
      std::vector<double> part;
      for (int64_t i = 0; i < rows; ++i)
        part.insert(part.end(), logits.begin() + i * vocab + first[s],
                    logits.begin() + i * vocab + first[s + 1]);
      slices.emplace_back(Shape{rows, first[s + 1] - first[s], 3}, part);
    }
  }
  int64_t cols(size_t s) const { return first[s + 1] - first[s]; }

  void forward() {
    max.assign(rows, -std::numeric_limits<A>::infinity());
    arg.assign(rows, -1), sum.assign(rows, 0), target.assign(rows, 0);
    std::vector<A> one(rows), two(rows);
    std::vector<std::vector<A>> here(slices.size(), one);
    std::vector<std::vector<int32_t>> at(slices.size(), arg);
    for (size_t s = 0; s < slices.size(); ++s) {
      run_op(CrossEntropyMax<T>{.rows = rows,
                                .first = first[s],
                                .cols = cols(s),
                                .logits = slices[s],
                                .max = here[s].data(),
                                .arg = at[s].data()});
      for (int64_t i = 0; i < rows; ++i) max[i] = std::max(max[i], here[s][i]);
    }
    arg.assign(rows, std::numeric_limits<int32_t>::max());
    for (size_t s = 0; s < slices.size(); ++s) {
      run_op(
          CrossEntropyArg<T>{.rows = rows, .here = here[s].data(), .max = max.data(), .arg = at[s].data()});
      for (int64_t i = 0; i < rows; ++i) arg[i] = std::min(arg[i], at[s][i]);
    }
    for (size_t s = 0; s < slices.size(); ++s) {
      run_op(CrossEntropySum<T>{.rows = rows,
                                .first = first[s],
                                .cols = cols(s),
                                .logits = slices[s],
                                .labels = labels.data(),
                                .max = max.data(),
                                .sum = one.data(),
                                .target = two.data()});
      for (int64_t i = 0; i < rows; ++i) sum[i] += one[i], target[i] += two[i];
    }
    run_op(CrossEntropyLoss<T>{.rows = rows,
                               .labels = labels.data(),
                               .sum = sum.data(),
                               .target = target.data(),
                               .result = &total,
                               .value = &value});
  }
  void gradient() {
    const A dloss = A(kDLoss);
    for (size_t s = 0; s < slices.size(); ++s)
      run_op(CrossEntropyGrad<T>{.rows = rows,
                                 .first = first[s],
                                 .cols = cols(s),
                                 .logits = slices[s],
                                 .labels = labels.data(),
                                 .max = max.data(),
                                 .sum = sum.data(),
                                 .target = target.data(),
                                 .dloss = &dloss,
                                 .loss = s == 0 ? loss.data() : nullptr});
  }
  std::vector<double> joined() const {
    std::vector<double> out(rows * first.back());
    for (size_t s = 0; s < slices.size(); ++s) {
      const auto v = slices[s].values();
      for (int64_t i = 0; i < rows; ++i)
        std::copy_n(v.begin() + i * cols(s), cols(s), out.begin() + i * first.back() + first[s]);
    }
    return out;
  }
};

double loss_of(const std::vector<double>& logits, int64_t vocab, int64_t row, int32_t label) {
  if (label < 0) return 0;
  double sum = 0;
  for (int64_t v = 0; v < vocab; ++v) sum += std::exp(logits[row * vocab + v]);
  return std::log(sum) - logits[row * vocab + label];
}

template <class T>
void check(int64_t rows, const std::vector<int64_t>& bounds) {
  const int64_t vocab = bounds.back();
  std::vector<double> logits = random_values(rows * vocab, 3);
  for (double& z : logits) z *= 4;
  std::vector<int32_t> labels(rows);
  for (int64_t i = 0; i < rows; ++i) labels[i] = i % 3 == 1 ? -1 : static_cast<int32_t>(i * 5 % vocab);
  Split<T> split(rows, bounds, labels, logits);
  split.forward();
  split.gradient();
  std::vector<double> want_loss(rows), want(rows * vocab, 0.0);
  for (int64_t i = 0; i < rows; ++i) {
    want_loss[i] = loss_of(logits, vocab, i, labels[i]);
    if (labels[i] < 0) continue;
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) sum += std::exp(logits[i * vocab + v]);
    for (int64_t v = 0; v < vocab; ++v)
      want[i * vocab + v] = kDLoss * (std::exp(logits[i * vocab + v]) / sum - (v == labels[i]));
    const auto begin = logits.begin() + i * vocab;
    EXPECT_EQ(split.arg[i], std::max_element(begin, begin + vocab) - begin);
  }
  expect_near<acc_t<T>>({split.loss.begin(), split.loss.end()}, want_loss, vocab, "loss");
  double sum = 0;
  for (double loss : want_loss) sum += loss;
  expect_near<acc_t<T>>({split.total - 1, double(split.value)}, {sum, sum}, vocab + rows, "sum of losses");
  expect_near<T>(split.joined(), want, vocab, "gradient");
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t v = 0; v < vocab && labels[i] < 0; ++v) EXPECT_EQ(split.joined()[i * vocab + v], 0);
}

TEST(CrossEntropy, Slices) {
  for (int64_t rows : {0, 1, 7})
    for (const std::vector<int64_t>& bounds : {std::vector<int64_t>{0, 1},
                                               {0, 37},
                                               {0, 5, 37},
                                               {0, 16, 16, 37},
                                               {0, 0, 20, 37},
                                               {0, 1100, 3000}}) {
      check<float>(rows, bounds);
      check<bf16>(rows, bounds);
      check<double>(rows, bounds);
    }
}

TEST(CrossEntropy, CentralDifferences) {
  const int64_t rows = 4, vocab = 11;
  std::vector<double> logits = random_values(rows * vocab, 8);
  const std::vector<int32_t> labels{10, -1, 0, 4};
  Split<double> split(rows, {0, 4, 4, 11}, labels, logits);
  split.forward();
  split.gradient();
  check_gradient(
      [&] {
        double sum = 0;
        for (int64_t i = 0; i < rows; ++i) sum += kDLoss * loss_of(logits, vocab, i, labels[i]);
        return sum;
      },
      logits, split.joined(), "logits");
}

TEST(CrossEntropy, LowestIndexWinsTies) {
  for (int64_t cols : {3, 40, 2500}) {
    std::vector<float> z(cols, 1.f);
    float max;
    int32_t arg;
    run_op(CrossEntropyMax<float>{
        .rows = 1, .first = 100, .cols = cols, .logits = {z.data(), cols}, .max = &max, .arg = &arg});
    EXPECT_EQ(arg, 100);
    z[cols / 2] = z[cols - 1] = 2.f;
    run_op(CrossEntropyMax<float>{
        .rows = 1, .first = 100, .cols = cols, .logits = {z.data(), cols}, .max = &max, .arg = &arg});
    EXPECT_EQ(max, 2.f);
    EXPECT_EQ(arg, 100 + cols / 2);
  }
}

TEST(CrossEntropy, ArgIsKeptWhereTheMaximumIs) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const std::vector<float> here{1, 2, -infinity, -infinity, nan, 3}, max{1, 3, -infinity, 0, nan, nan};
  std::vector<int32_t> arg{10, 11, 12, 13, 14, 15};
  run_op(CrossEntropyArg<float>{.rows = 6, .here = here.data(), .max = max.data(), .arg = arg.data()});
  constexpr int32_t none = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(arg, (std::vector<int32_t>{10, none, 12, none, 14, 15}));
}

TEST(CrossEntropy, LossesAddUpOverCalls) {
  const std::vector<float> sum{2, 3, 5}, target{-1, -2, 0};
  const std::vector<int32_t> labels{4, -1, 0};
  double result = 0;
  float value = -1;
  for (int call = 1; call <= 2; ++call) {
    run_op(CrossEntropyLoss<float>{.rows = 3,
                                   .labels = labels.data(),
                                   .sum = sum.data(),
                                   .target = target.data(),
                                   .result = &result,
                                   .value = &value});
    EXPECT_DOUBLE_EQ(result, call * (std::log(2.0) + 1 + std::log(5.0)));
    EXPECT_FLOAT_EQ(value, static_cast<float>(std::log(10.0) + 1));
  }
  run_op(CrossEntropyLoss<float>{
      .rows = 0, .labels = nullptr, .sum = nullptr, .target = nullptr, .result = &result, .value = &value});
  EXPECT_EQ(value, 0);
}

TEST(CrossEntropy, EmptySlice) {
  float max = 1, sum = 1, target = 1;
  const int32_t label = 5;
  run_op(CrossEntropyMax<float>{.rows = 1, .first = 5, .cols = 0, .logits = {nullptr, 0}, .max = &max});
  EXPECT_EQ(max, -std::numeric_limits<float>::infinity());
  run_op(CrossEntropySum<float>{.rows = 1,
                                .first = 5,
                                .cols = 0,
                                .logits = {nullptr, 0},
                                .labels = &label,
                                .max = &max,
                                .sum = &sum,
                                .target = &target});
  EXPECT_EQ(sum, 0);
  EXPECT_EQ(target, 0);
}

}  // namespace
}  // namespace mimo::op_test
