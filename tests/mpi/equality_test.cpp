// Any layout gives the same training run as one process: initial weights bit for bit, the reduced gradient of
// every parameter at step 1, losses and gradient norms of 20 steps.
#include <cmath>

#include "tests/mpi/main.h"
#include "tools/trainer.h"

const char* const kRanks = "2 3 4 5 6 8";

namespace mimo {
namespace {

struct Case {
  int ranks;
  const char* vision;
  const char* language;
};

// A layout is one row; it runs where mpirun started that many ranks.
const Case kCases[] = {
    {2, "dp1@0", "dp1@1"},  // disjoint
    {2, "dp1@1", "dp1@0"},  // the other way round
    {3, "dp1@0", "tp2,dp1@1"},
    {5, "dp1@0", "tp4,dp1@1"},
    {3, "dp1@0", "pp2,dp1@1"},
    {4, "dp1@0", "pp3,dp1@1"},
    {4, "dp1@0", "dp3@1"},
    {3, "dp2@0", "dp1@2"},
    {3, "dp1@0", "dp2@1"},
    {5, "dp3@0", "dp2@3"},
    {8, "dp3@0", "dp5@3"},
    {3, "tp2,dp1@0", "tp1,dp1@2"},
    {4, "tp2,dp1@0", "tp2,dp1@2"},
    {6, "tp2,dp1@0", "tp4,dp1@2"},
    {8, "tp2,dp2@0", "tp2,pp2,dp1@4"},
    {4, "pp2,dp1@0", "pp2,dp1@2"},
    {2, "dp2@0", "dp2@0"},  // colocated
    {2, "dp2@0", "tp2,dp1@0"},
    {2, "dp2@0", "pp2,dp1@0"},
    {4, "dp4@0", "tp2,pp2,dp1@0"},
    {4, "tp2,dp2@0", "dp4@0"},
};

constexpr int kSteps = 20;

Job job_of(int world, std::vector<std::string> layout, DType dtype) {
  std::vector<std::string> overrides = {
      "--train.steps=20", "--train.lr=1e-3",           "--train.min_lr=1e-3",
      "--train.eps=1e-8", "--train.schedule=constant", "--train.warmup=0",
      "--data.workers=0", "--train.global_batch=32",   "--train.micro_batch=4"};
  overrides.insert(overrides.end(), layout.begin(), layout.end());
  Job job = make_job("tools/configs/digits.toml", overrides, world);
  job.model.dtype = dtype;
  return job;
}

// Global tensors by name, as doubles.
using Tensors = std::map<std::string, std::vector<double>>;

// Every element comes from the first rank that holds it.
Tensors gather(const std::vector<Parameter*>& mine, const std::map<std::string, Dims>& shapes, bool gradients,
               Communicator& world) {
  Tensors out;
  for (const auto& [name, shape] : shapes) out[name].assign(static_cast<size_t>(numel(shape)), 0.0);
  for (Parameter* p : mine) {
    if (p->copies.front() != world.rank()) continue;
    std::vector<double>& to = out.at(p->name);
    const Tensor& t = gradients ? p->grad : p->value;
    for_each_run(p->shard, p->shape, [&](int64_t local, int64_t global, int64_t count) {
      for (int64_t i = 0; i < count; ++i)
        to[static_cast<size_t>(global + i)] =
            t.dtype() == DType::f64 ? t.data<double>()[local + i] : t.data<float>()[local + i];
    });
  }
  for (auto& [name, values] : out)
    world
        .all_reduce(Buffer(values.data(), static_cast<int64_t>(values.size()), DType::f64), ReduceOp::sum,
                    current_stream())
        .wait();
  return out;
}

struct Course {
  Tensors weights, gradients;
  std::vector<double> loss, norm;
};

Course run(const Job& job, World& world, const std::map<std::string, Dims>& shapes, int steps) {
  Trainer trainer(job, world);
  if (job.model.dtype == DType::f64)  // the very weights of fp32, so that only the arithmetic differs
    for (Parameter* p : trainer.parameters())
      for (int64_t i = 0; i < p->value.numel(); ++i)
        p->value.data<double>()[i] = static_cast<float>(p->value.data<double>()[i]);
  Course c;
  c.weights = gather(trainer.parameters(), shapes, false, world.world());
  for (int s = 0; s < steps; ++s) {
    const StepResult r = trainer.step([&] {
      if (s == 0) c.gradients = gather(trainer.parameters(), shapes, true, world.world());
    });
    c.loss.push_back(r.loss.value());
    c.norm.push_back(r.grad_norm);
  }
  return c;
}

struct Reference {
  std::map<std::string, Dims> shapes;
  Course single, exact;  // in fp32; the first step in double
};

const Reference& reference() {
  static const Reference r = [] {
    Reference made;
    const std::unique_ptr<World> self = self_world();
    const Job job = job_of(1, {}, DType::f32);
    {
      const Trainer trainer(job, *self);
      for (Parameter* p : trainer.parameters()) made.shapes[p->name] = p->shape;
    }
    if (test_comm().rank() == 0) {
      made.single = run(job, *self, made.shapes, kSteps);
      made.exact = run(job_of(1, {}, DType::f64), *self, made.shapes, 1);
    }
    test_comm().barrier();
    return made;
  }();
  return r;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

double rms(const std::vector<double>& a) {
  double sum = 0;
  for (double x : a) sum += x * x;
  return std::sqrt(sum / static_cast<double>(std::max<size_t>(1, a.size())));
}

TEST(Layout, GivesTheRunOfOneProcess) {
  const Reference& r = reference();
  int ran = 0;
  for (const Case& c : kCases) {
    if (c.ranks != test_comm().size()) continue;
    ++ran;
    SCOPED_TRACE(std::string("vision ") + c.vision + ", language " + c.language);
    const Job job = job_of(
        c.ranks, {std::string("--layout.vision=") + c.vision, std::string("--layout.language=") + c.language},
        DType::f32);
    const Course course = run(job, test_world(), r.shapes, kSteps);
    if (test_comm().rank() != 0) continue;

    double all = 0;
    for (const auto& [name, values] : r.exact.gradients) all = std::max(all, rms(values));
    for (const auto& [name, shape] : r.shapes) {
      EXPECT_EQ(course.weights.at(name), r.single.weights.at(name)) << "initial " << name;
      // What fp32 costs is measured, against double precision, on one process; another order of sums may cost
      // a few times that. The floor is the rounding of one sum over the step: where a gradient vanishes, only
      // that is left.
      const std::vector<double>& exact = r.exact.gradients.at(name);
      const double allowed =
          4 * largest_difference(r.single.gradients.at(name), exact) + 2e-6 * rms(exact) + 1e-7 * all;
      EXPECT_LE(largest_difference(course.gradients.at(name), exact), allowed)
          << "gradient of " << name << ", rms " << rms(exact);
    }
    for (int s = 0; s < kSteps; ++s) {
      EXPECT_NEAR(course.loss[s], r.single.loss[s], 1e-5 * r.single.loss[s]) << "loss of step " << s + 1;
      EXPECT_NEAR(course.norm[s], r.single.norm[s], 1e-4 * r.single.norm[s])
          << "gradient norm of step " << s + 1;
    }
  }
  EXPECT_GT(ran, 0);
}

}  // namespace
}  // namespace mimo
