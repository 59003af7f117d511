// Collectives with gradients, gradient reduction and the step reduction, against sums made by hand.
#include "parallel/gradients.h"
#include "parallel/step_sums.h"

#include <cmath>
#include <deque>
#include <limits>

#include "main.h"
#include "parallel/collectives.h"

const char* const kRanks = "1 2 4";

namespace mimo {
namespace {

// x[r][i] differs by rank; small integers, so that sums are exact in any dtype.
Tensor of_rank(int r, Dims shape, DType dtype) {
  std::vector<double> v(numel(shape));
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<double>((i * 7 + r * 3) % 11) - 5;
  if (dtype == DType::f64) return Tensor::of(v, shape);
  const Tensor f = Tensor::of(std::vector<float>(v.begin(), v.end()), shape);
  return dtype == DType::f32 ? f : cast(f, dtype);
}

std::vector<double> doubles(const Tensor& t) {
  std::vector<double> out;
  dispatch(t.dtype(), [&]<class T>() {
    for (T v : t.to_vector<T>()) out.push_back(static_cast<double>(v));
  });
  return out;
}

std::vector<double> summed(int ranks, const Dims& shape) {
  std::vector<double> out(numel(shape), 0);
  for (int r = 0; r < ranks; ++r) {
    const auto x = doubles(of_rank(r, shape, DType::f64));
    for (size_t i = 0; i < out.size(); ++i) out[i] += x[i];
  }
  return out;
}

class Collectives : public testing::TestWithParam<DType> {};

TEST_P(Collectives, CopyAndReduceAreEachOthersAdjoint) {
  Communicator& comm = test_comm();
  for (const Dims& shape : {Dims{3, 5}, Dims{0, 5}, Dims{1, 1}}) {
    const Tensor x = leaf(of_rank(comm.rank(), shape, GetParam()));
    const Tensor dy = of_rank(comm.rank() + 1, shape, GetParam());
    const Tensor y = copy_to_group(x, &comm);
    EXPECT_EQ(doubles(y), doubles(x));
    backward(y, dy);
    std::vector<double> expected(numel(shape), 0);
    for (int r = 0; r < comm.size(); ++r) {
      const auto d = doubles(of_rank(r + 1, shape, GetParam()));
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += d[i];
    }
    EXPECT_EQ(doubles(x.node()->grad), expected);
    EXPECT_EQ(doubles(dy), doubles(of_rank(comm.rank() + 1, shape, GetParam()))) << "dy is not written to";

    const Tensor z = leaf(of_rank(comm.rank(), shape, GetParam()));
    const Tensor sum = reduce_from_group(z, &comm);
    EXPECT_EQ(doubles(sum), summed(comm.size(), shape));
    EXPECT_EQ(doubles(z), doubles(of_rank(comm.rank(), shape, GetParam()))) << "x is not written to";
    backward(sum, dy);
    EXPECT_EQ(doubles(z.node()->grad), doubles(dy));
  }
}

TEST_P(Collectives, WithoutAGroupAreTheIdentity) {
  const Tensor x = of_rank(0, {2, 2}, GetParam());
  const auto self = self_communicator();
  for (Communicator* group : {static_cast<Communicator*>(nullptr), self.get()}) {
    EXPECT_EQ(copy_to_group(x, group).raw(), x.raw());
    EXPECT_EQ(reduce_from_group(x, group).raw(), x.raw());
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, Collectives, testing::Values(DType::f32, DType::bf16, DType::f64),
                         [](const auto& row) { return std::string(name_of(row.param)); });

Parameter parameter(const std::string& name, int64_t n, std::vector<Ranks> partial, int seed,
                    DType dtype = DType::f32) {
  Parameter p;
  p.name = name;
  p.shape = {n};
  p.value = Tensor::zeros({n}, dtype);
  p.grad = of_rank(seed, {n}, acc_of(dtype));
  p.partial = std::move(partial);
  return p;
}

std::vector<Parameter*> pointers(std::deque<Parameter>& parameters) {
  std::vector<Parameter*> out;
  for (Parameter& p : parameters) out.push_back(&p);
  return out;
}

Ranks everyone() { return test_comm().ranks(); }

TEST(ReduceGradients, SumsOverTheirGroupsInBucketsOfAnySize) {
  const int n = test_comm().size(), me = test_comm().rank();
  for (int64_t bucket : {1, 100, 1 << 20}) {
    std::deque<Parameter> parameters;
    for (int k = 0; k < 7; ++k)
      parameters.push_back(parameter("p" + std::to_string(k), 3 * k, {everyone()}, me));
    parameters.push_back(parameter("double", 5, {everyone()}, me, DType::f64));
    parameters.push_back(parameter("bf16", 5, {everyone()}, me, DType::bf16));
    parameters.push_back(parameter("alone", 5, {}, me));
    parameters.push_back(parameter("one", 5, {{me}}, me));
    parameters.push_back(parameter("frozen", 5, {everyone()}, me));
    parameters.back().trainable = false;
    // Every rank may list them as it likes.
    if (me % 2) std::reverse(parameters.begin(), parameters.end());
    const auto list = pointers(parameters);
    const Groups groups(test_world(), gradient_groups(list));
    reduce_gradients(list, groups, bucket).wait();
    for (const Parameter& p : parameters) {
      const bool stays = p.name == "alone" || p.name == "one" || p.name == "frozen";
      EXPECT_EQ(doubles(p.grad), stays ? doubles(of_rank(me, p.shape, DType::f64)) : summed(n, p.shape))
          << p.name;
    }
  }
}

// A 2 x 2 grid: ranks 0 1 | 2 3 are tp groups, 0 2 | 1 3 dp groups; the last rank of each pipeline of two
// ties an embedding to the first.
TEST(ReduceGradients, PartialGroupsInTurn) {
  if (test_comm().size() != 4) return;
  const int me = test_comm().rank();
  const Ranks tp = me < 2 ? Ranks{0, 1} : Ranks{2, 3}, dp = me % 2 == 0 ? Ranks{0, 2} : Ranks{1, 3};
  const Ranks tied = me == 0 || me == 3 ? Ranks{0, 3} : Ranks{1, 2};
  std::deque<Parameter> parameters;
  parameters.push_back(parameter("weight", 6, {dp}, me));
  parameters.push_back(parameter("norm", 6, {tp, dp}, me));
  parameters.push_back(parameter("embedding", 6, {dp, tied}, me));
  const auto list = pointers(parameters);
  const Groups groups(test_world(), gradient_groups(list));
  reduce_gradients(list, groups).wait();
  const auto sum_of = [](const Ranks& ranks) {
    std::vector<double> out(6, 0);
    for (int r : ranks)
      for (size_t i = 0; i < 6; ++i) out[i] += doubles(of_rank(r, {6}, DType::f64))[i];
    return out;
  };
  EXPECT_EQ(doubles(parameters[0].grad), sum_of(dp));
  EXPECT_EQ(doubles(parameters[1].grad), sum_of({0, 1, 2, 3}));
  EXPECT_EQ(doubles(parameters[2].grad), sum_of({0, 1, 2, 3}));
}

TEST(ReduceStep, CountsEveryElementOnce) {
  Communicator& comm = test_comm();
  const int n = comm.size(), me = comm.rank();
  std::deque<Parameter> vision, language;
  // Replicated: equal on all ranks, counted by the first. Sharded: each rank's own.
  vision.push_back(parameter("replicated", 10, {}, 5));
  vision.back().copies = everyone();
  vision.push_back(parameter("sharded", 4, {}, me));
  vision.back().copies = {me};
  language.push_back(parameter("double", 3, {}, me, DType::f64));
  language.back().copies = {me};
  language.push_back(parameter("empty", 0, {}, me));
  language.back().copies = {me};
  language.push_back(parameter("frozen", 3, {}, me));
  language.back().copies = {me};
  language.back().trainable = false;
  StepSums step;
  step.sums = Sums({"balance", "loss"});
  step.sums["loss"] = 0.5 * me;
  step.sums["balance"] = 3;
  step.stop = me == n - 1;
  const auto v = pointers(vision), l = pointers(language);
  add_gradients(step, 0, v, me);
  add_gradients(step, 1, l, me);
  reduce_step(step, comm);
  const auto squares = [](int seed, int64_t count) {
    double sum = 0;
    for (double x : doubles(of_rank(seed, {count}, DType::f64))) sum += x * x;
    return sum;
  };
  double vision_norm = squares(5, 10), language_norm = 0;
  for (int r = 0; r < n; ++r) vision_norm += squares(r, 4), language_norm += squares(r, 3);
  EXPECT_EQ(step.squared_norm, (std::vector<double>{vision_norm, language_norm}));
  EXPECT_EQ(step.sums["loss"], 0.25 * n * (n - 1));
  EXPECT_EQ(step.sums["balance"], 3 * n);
  EXPECT_EQ(step.non_finite, 0);
  EXPECT_TRUE(step.stop);
}

TEST(ReduceStep, EveryRankHearsOfOneBadElement) {
  Communicator& comm = test_comm();
  std::deque<Parameter> parameters;
  parameters.push_back(parameter("p", 4, {}, 0));
  parameters.back().copies = {comm.rank()};
  if (comm.rank() == comm.size() - 1)
    parameters.back().grad.data<float>()[2] = std::numeric_limits<float>::infinity();
  StepSums step;
  const auto list = pointers(parameters);
  add_gradients(step, 0, list, comm.rank());
  reduce_step(step, comm);
  EXPECT_EQ(step.non_finite, 1);
  EXPECT_TRUE(std::isfinite(step.squared_norm[0]));
  EXPECT_FALSE(step.stop);
}

}  // namespace
}  // namespace mimo
