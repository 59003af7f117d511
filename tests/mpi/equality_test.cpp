// Any layout gives the same training run as one process: initial weights bit for bit, the reduced gradient of
// every trained parameter at step 1, losses and gradient norms of 20 steps.
#include <cmath>
#include <cstdlib>
#include <random>

#include "data/write_dataset.h"
#include "tests/io/temp_dir.h"
#include "tests/mpi/main.h"
#include "tools/run/trainer.h"

const char* const kRanks = "2 3 4 5 6 8";

namespace mimo {
namespace {

using Overrides = std::vector<std::string>;

// One run, where mpirun started that many ranks: layouts, and whatever else the command line takes.
struct Row {
  int ranks;
  Overrides overrides;
  const char* name;
};

Overrides on(const std::string& vision, const std::string& language, const Overrides& more = {}) {
  Overrides out{"--layout.vision=" + vision, "--layout.language=" + language};
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

// A second encoder, smaller than the first, of every other image.
Overrides two_encoders(const std::string& vision, const std::string& glance, const std::string& language) {
  return on(vision, language,
            {"--layout.glance=" + glance, "--data.path=two modalities", "--module.glance.kind=vit",
             "--module.glance.modality=glance", "--module.glance.hidden=32", "--module.glance.layers=3",
             "--module.glance.heads=4", "--module.glance.ffn=64", "--module.glance.patch=4",
             "--module.glance.grid=12"});
}

// A projector on ranks of its own between the encoder and the language model; `more`: edges.
Overrides chain(const std::string& vision, const std::string& middle, const std::string& language,
                const Overrides& edges) {
  Overrides more{"--layout.middle=" + middle, "--module.middle.kind=projector", "--module.middle.ffn=64"};
  more.insert(more.end(), edges.begin(), edges.end());
  return on(vision, language, more);
}
const Overrides kChain{"--module.vision.projector=none", "--edges.vision=middle", "--edges.middle=language"},
    kTwoConsumers{"--edges.vision=language,middle", "--edges.middle=language"},
    kLateConsumer{"--edges.vision=language,middle", "--edges.middle=language.image@4"};

const Row kRows[] = {
    {2, on("dp1@0", "dp1@1"), "disjoint"},
    {2, on("dp1@1", "dp1@0"), "the other way round"},
    {3, on("dp1@0", "tp2,dp1@1"), "tp after none"},
    {5, on("dp1@0", "tp4,dp1@1"), "tp of four"},
    {3, on("dp1@0", "pp2,dp1@1"), "a pipeline"},
    {4, on("dp1@0", "pp3,dp1@1"), "a longer one"},
    {4, on("dp1@0", "dp3@1"), "three lanes"},
    {3, on("dp2@0", "dp1@2"), "lanes join"},
    {3, on("dp1@0", "dp2@1"), "lanes part"},
    {5, on("dp3@0", "dp2@3"), "lanes that do not divide"},
    {8, on("dp3@0", "dp5@3"), "nor these"},
    {3, on("tp2,dp1@0", "tp1,dp1@2"), "tp before none"},
    {4, on("tp2,dp1@0", "tp2,dp1@2"), "tp and tp"},
    {6, on("tp2,dp1@0", "tp4,dp1@2"), "tp and more of it"},
    {8, on("tp2,dp2@0", "tp2,pp2,dp1@4"), "everything"},
    {4, on("pp2,dp1@0", "pp2,dp1@2"), "two pipelines"},
    {2, on("dp2@0", "dp2@0"), "colocated lanes"},
    {2, on("dp2@0", "tp2,dp1@0"), "colocated lanes and tp"},
    {2, on("dp2@0", "pp2,dp1@0"), "colocated lanes and pipeline"},
    {4, on("dp4@0", "tp2,pp2,dp1@0"), "colocated lanes and both"},
    {4, on("tp2,dp2@0", "dp4@0"), "colocated tp and lanes"},
    {3, on("dp2@0", "pp2,dp1@1"), "lanes overlap a pipeline"},
    {3, on("tp2,dp1@0", "tp2,dp1@1"), "tp overlaps tp"},
    {3, on("tp2,dp1@1", "pp3,dp1@0"), "tp within a pipeline"},
    {4, on("dp3@0", "tp2,dp1@2"), "lanes overlap tp"},
    {5, on("pp3,dp1@0", "tp2,dp2@1"), "a pipeline overlaps both"},
    {6, on("tp2,dp2@2", "tp2,pp2,dp1@0"), "both overlap both"},
    {3, two_encoders("dp2@0", "tp2,dp1@0", "pp2,dp1@1"), "colocated encoders, one overlaps"},
    {4, two_encoders("dp2@0", "tp2,dp1@0", "pp2,dp1@2"), "colocated encoders before a pipeline"},
    {4, two_encoders("dp1@0", "pp2,dp1@0", "dp3@1"), "an encoder within an encoder"},
    {5, two_encoders("tp2,dp1@3", "dp3@0", "tp2,dp1@0"), "an encoder beside colocated ones"},
    {6, two_encoders("dp4@0", "pp2,dp1@4", "tp2,pp2,dp1@0"), "mixed with a pipeline"},
    {2, on("tp2,dp1@0", "tp2,dp1@0", {"--train.recompute=true"}), "recompute with tp"},
    {4, on("tp2,dp1@0", "tp2,pp2,dp1@0", {"--train.recompute=true"}), "recompute with tp and pipeline"},
    {2, on("dp1@0", "dp1@1", {"--train.dtype=bf16"}), "bf16, disjoint"},
    {2, on("dp2@0", "tp2,dp1@0", {"--train.dtype=bf16"}), "bf16, colocated"},
    {4, on("tp2,dp1@0", "tp2,pp2,dp1@0", {"--train.dtype=bf16"}), "bf16, cut all ways"},
    {3, on("dp1@0", "tp2,dp1@1", {"--train.freeze=vision.*"}), "vision frozen"},
    {4, on("dp2@0", "pp2,dp2@0", {"--train.freeze=vision.*"}), "vision frozen, colocated"},
    {3, on("tp2,dp1@0", "pp2,dp1@1", {"--train.freeze=language.*"}), "language frozen"},
    {3, on("dp2@0", "pp2,dp1@1", {"--train.freeze=*", "--train.unfreeze=vision.projector.*"}),
     "the projector alone"},
    {4, on("pp2,tp2,dp1@0", "tp2,dp1@2", {"--train.freeze=*", "--train.unfreeze=vision.projector.*"}),
     "the projector alone, at the end of a pipeline"},
    {3, on("pp3,dp1@0", "dp3@0", {"--train.freeze=*.weight"}), "biases alone"},
    {3, chain("dp1@0", "dp1@1", "dp1@2", kChain), "a chain"},
    {4, chain("pp2,dp1@0", "tp2,dp1@1", "dp2@2", kChain), "a chain that overlaps"},
    {4, chain("dp3@0", "dp2@1", "tp2,pp2,dp1@0", kChain), "a chain, mixed"},
    {3, chain("dp1@0", "dp1@0", "pp2,dp1@1", kChain), "a chain, half colocated"},
    {3, chain("dp1@0", "dp1@1", "dp1@2", kTwoConsumers), "two consumers"},
    {4, chain("dp2@0", "tp2,dp1@1", "pp2,dp1@2", kTwoConsumers), "two consumers, overlapping"},
    {2, chain("dp2@0", "dp1@1", "pp2,dp1@0", kLateConsumer), "past the first stage"},
    {4, chain("tp2,dp1@0", "dp3@0", "pp3,dp1@1", kLateConsumer), "past the first stages, mixed"},
};

constexpr int kSteps = 20;

bool is_layout(const std::string& override) { return override.starts_with("--layout."); }

// The first samples of the digits, every other image of which is of a second modality: the same file on all
// ranks.
std::string two_modalities() {
  static const std::unique_ptr<TempDir> mine =
      test_comm().rank() == 0 ? std::make_unique<TempDir>() : nullptr;
  static const std::string path = [] {
    std::string file = mine ? (*mine / "two.h5").string() : "";
    file.resize(256);
    if (mine) {
      const auto digits = open_dataset("data/digits.h5");
      DatasetHeader header = digits->header;
      header.modalities.push_back(header.modalities[0]);
      header.modalities[1].name = "glance";
      const auto dealt = [](const Split& split) {
        return [&split](int64_t i) {
          Sample s = split.read(i);
          for (size_t k = 0; k < s.items.size(); ++k) s.items[k].modality = static_cast<int>(i / 2 + k) % 2;
          return s;
        };
      };
      write_dataset(file.c_str(), header,
                    {{"train", 400, 0, dealt(digits->train)}, {"heldout", 4, 4, dealt(digits->heldout)}});
    }
    test_comm().broadcast({file.data(), 256, DType::u8}, 0, current_stream()).wait();
    return std::string(file.c_str());
  }();
  return path;
}

Job job_of(int world, const Overrides& row) {
  Overrides overrides = {"--train.steps=20", "--train.lr=1e-3",           "--train.min_lr=1e-3",
                         "--train.eps=1e-8", "--train.schedule=constant", "--train.warmup=0",
                         "--data.workers=0", "--train.global_batch=32",   "--train.micro_batch=4"};
  overrides.insert(overrides.end(), row.begin(), row.end());
  for (std::string& o : overrides)
    if (o == "--data.path=two modalities") o = "--data.path=" + two_modalities();
  return make_job("tools/configs/digits.toml", overrides, world);
}

// Global tensors by name, as doubles.
using Tensors = std::map<std::string, std::vector<double>>;
struct Shape {
  Dims dims;
  bool trainable;
};
using Shapes = std::map<std::string, Shape>;

enum class What { values, gradients };

// Every element comes from the first rank that holds it.
Tensors gather(const std::vector<Parameter*>& mine, const Shapes& shapes, What what, Communicator& world) {
  Tensors out;
  for (const auto& [name, shape] : shapes)
    if (what == What::values || shape.trainable)
      out[name].assign(static_cast<size_t>(numel(shape.dims)), 0.0);
  for (Parameter* p : mine) {
    if (p->copies.front() != world.rank() || !out.contains(p->name)) continue;
    std::vector<double>& to = out.at(p->name);
    const Tensor& t = what == What::gradients ? p->grad : p->value;
    dispatch(t.dtype(), [&]<class T>() {
      for_each_run(p->shard, p->shape, [&](int64_t local, int64_t global, int64_t count) {
        std::copy_n(t.data<T>() + local, count, to.begin() + global);
      });
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

// `weights`: where to begin, on one process, instead of where the seed says.
Course run(const Job& job, World& world, const Shapes& shapes, int steps, const Tensors& weights = {}) {
  Trainer trainer(job, world);
  for (Parameter* p : trainer.parameters())
    if (const auto found = weights.find(p->name); found != weights.end())
      copy_into(p->value, Tensor::of(found->second, p->value.shape()));
  Course c;
  c.weights = gather(trainer.parameters(), shapes, What::values, world.world());
  for (int s = 0; s < steps; ++s) {
    const StepResult r = trainer.step([&] {
      if (s == 0) c.gradients = gather(trainer.parameters(), shapes, What::gradients, world.world());
    });
    c.loss.push_back(r.loss.value());
    c.norm.push_back(r.grad_norm);
  }
  return c;
}

struct Reference {
  Shapes shapes;
  Course single, exact;  // as the row says; the first step in double, from the very same weights
};

// Of a row's overrides but for its layout.
const Reference& reference(const Overrides& row) {
  static std::map<Overrides, Reference> made;
  Overrides model;
  std::copy_if(row.begin(), row.end(), std::back_inserter(model), std::not_fn(is_layout));
  const auto [it, fresh] = made.try_emplace(model);
  Reference& r = it->second;
  if (!fresh) return r;
  const std::unique_ptr<World> self = self_world();
  Job job = job_of(1, model);
  {
    const Trainer trainer(job, *self);
    for (Parameter* p : trainer.parameters()) r.shapes[p->name] = {p->shape, p->trainable};
  }
  if (test_comm().rank() == 0) {
    r.single = run(job, *self, r.shapes, kSteps);
    job.model.dtype = DType::f64;
    r.exact = run(job, *self, r.shapes, 1, r.single.weights);
  }
  test_comm().barrier();
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

// How far another order of sums may lead, relative to what is compared: gradients by some roundings of their
// own or one of the largest, losses and norms over 20 steps by four to ten times what is seen (f32: at most
// 2e-6 and 9e-6; bf16: 1e-3 and 8e-3, its rounding being 2e-3).
struct Tolerance {
  double gradient, all_gradients, loss, norm;
};
constexpr Tolerance kF32{2e-6, 1e-7, 1e-5, 1e-4};
constexpr Tolerance kBf16{2e-2, 1e-3, 1e-2, 1e-1};

void expect_the_run_of_one_process(const Overrides& row) {
  std::string text;
  for (const std::string& o : row) text += o + " ";
  SCOPED_TRACE(text);
  const Reference& r = reference(row);
  const Job job = job_of(test_comm().size(), row);
  const Course course = run(job, test_world(), r.shapes, kSteps);
  if (test_comm().rank() != 0) return;

  const Tolerance& allow = job.model.dtype == DType::bf16 ? kBf16 : kF32;
  for (const auto& [name, weights] : r.single.weights)
    EXPECT_EQ(course.weights.at(name), weights) << "initial " << name;
  double all = 0;
  for (const auto& [name, values] : r.exact.gradients) all = std::max(all, rms(values));
  EXPECT_GT(all, 0);
  for (const auto& [name, exact] : r.exact.gradients) {
    // What rounding costs is measured, against double precision, on one process; another order of sums may
    // cost a few times that. The floor is the rounding of one sum over the step: where a gradient vanishes,
    // only that is left.
    const double allowed = 4 * largest_difference(r.single.gradients.at(name), exact) +
                           allow.gradient * rms(exact) + allow.all_gradients * all;
    const double found = largest_difference(course.gradients.at(name), exact);
    EXPECT_LE(found, allowed) << "gradient of " << name << ", rms " << rms(exact);
  }
  for (int s = 0; s < kSteps; ++s) {
    EXPECT_NEAR(course.loss[s], r.single.loss[s], allow.loss * r.single.loss[s]) << "loss of step " << s + 1;
    EXPECT_NEAR(course.norm[s], r.single.norm[s], allow.norm * r.single.norm[s])
        << "gradient norm of step " << s + 1;
  }
}

TEST(Layout, GivesTheRunOfOneProcess) {
  int ran = 0;
  for (const Row& row : kRows) {
    if (row.ranks != test_comm().size()) continue;
    ++ran;
    SCOPED_TRACE(row.name);
    expect_the_run_of_one_process(row.overrides);
  }
  EXPECT_GT(ran, 0);
}

// A grid of at most three stages and four-fold tp anywhere on the ranks.
Grid draw_grid(std::mt19937& random, int world) {
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  for (;;) {
    Grid g{.tp = 1 << below(3), .dp = 1 + below(world), .pp = 1 + below(3)};
    if (g.size() > world) continue;
    g.offset = below(world - g.size() + 1);
    return g;
  }
}

TEST(Layout, RandomOnesGiveTheRunOfOneProcess) {
  if (!std::getenv("MIMO_TEST_ALL")) GTEST_SKIP() << "only in make test-all";
  const int world = test_comm().size();
  std::mt19937 random(static_cast<unsigned>(world));
  for (int i = 0; i < 16; ++i) {
    std::vector<Grid> grids;
    std::vector<bool> taken;
    do {  // until no rank is left out
      grids.clear();
      taken.assign(static_cast<size_t>(world), false);
      for (int m = 0; m < 2 + i % 2; ++m) {
        const Grid& g = grids.emplace_back(draw_grid(random, world));
        for (int r = g.offset; r < g.end(); ++r) taken[static_cast<size_t>(r)] = true;
      }
    } while (std::count(taken.begin(), taken.end(), false) > 0);
    const std::string first = to_string(grids[0]), last = to_string(grids.back());
    expect_the_run_of_one_process(i % 2 == 0 ? on(first, last)
                                             : two_encoders(first, to_string(grids[1]), last));
  }
}

}  // namespace
}  // namespace mimo
