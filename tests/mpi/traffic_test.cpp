// The messages that a plan charges for are those that a step sends, in number and in bytes.
#include <numeric>
#include <set>

#include "tests/mpi/main.h"
#include "tools/run/planned.h"
#include "tools/run/trainer.h"

const char* const kRanks = "2 3 4";

namespace mimo {
namespace {

// A communicator that counts what this rank sums and sends.
class Counting : public Communicator {
 public:
  explicit Counting(Communicator& inner) : inner_(inner) {}
  Traffic reduced, sent;

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const Ranks& ranks() const override { return inner_.ranks(); }
  Work all_reduce(Buffer b, ReduceOp op, Stream& s) override {
    reduced.add(b.count * size_of(b.dtype));
    return inner_.all_reduce(b, op, s);
  }
  Work all_gather(Buffer in, Buffer out, std::span<const int64_t> counts, Stream& s) override {
    ADD_FAILURE() << "an all_gather, which no plan charges for";
    return inner_.all_gather(in, out, counts, s);
  }
  Work reduce_scatter(Buffer in, Buffer out, std::span<const int64_t> counts, Stream& s) override {
    ADD_FAILURE() << "a reduce_scatter, which no plan charges for";
    return inner_.reduce_scatter(in, out, counts, s);
  }
  Work broadcast(Buffer b, int root, Stream& s) override {
    ADD_FAILURE() << "a broadcast, which no plan charges for";
    return inner_.broadcast(b, root, s);
  }
  Work all_to_all(Buffer in, std::span<const int64_t> send, Buffer out, std::span<const int64_t> receive,
                  Stream& s) override {
    ADD_FAILURE() << "an all_to_all, which no plan charges for";
    return inner_.all_to_all(in, send, out, receive, s);
  }
  Work exchange(std::span<const P2P> list, Stream& s) override {
    for (const P2P& m : list)
      if (m.send) sent.add(m.buffer.count * size_of(m.buffer.dtype));
    return inner_.exchange(list, s);
  }
  void barrier() override { inner_.barrier(); }
  std::string failure() override { return inner_.failure(); }
  void abort(std::string_view why) override { inner_.abort(why); }

 private:
  Communicator& inner_;
};

// A world whose groups count.
class CountingWorld : public World {
 public:
  explicit CountingWorld(World& inner) : inner_(inner), world_(inner.world()) {}
  struct Made {
    std::shared_ptr<Communicator> inner;
    std::shared_ptr<Counting> counting;
  };
  std::vector<Made> groups;  // of this rank, in the order of creation

  Counting& world() override { return world_; }
  std::shared_ptr<Communicator> create(const Ranks& ranks, const Limits& limits = {}) override {
    Made g{inner_.create(ranks, limits), nullptr};
    if (!g.inner) return nullptr;
    g.counting = std::make_shared<Counting>(*g.inner);
    groups.push_back(g);
    return g.counting;
  }
  int node_rank() const override { return inner_.node_rank(); }
  int node_size() const override { return inner_.node_size(); }

 private:
  World& inner_;
  Counting world_;
};

struct Case {
  int ranks;
  const char *vision, *language;
  std::vector<std::string> more = {};
};

const Case kCases[] = {
    {2, "dp1@0", "dp1@1"},
    {2, "tp2,dp1@0", "tp2,dp1@0"},
    {2, "tp2,dp1@0", "tp2,dp1@0", {"--train.recompute=true"}},
    {2, "tp2,dp1@0", "tp2,dp1@0", {"--module.language.pattern=MS*-", "--module.language.scan_inner=32"}},
    {2, "tp2,dp1@0", "tp2,dp1@0", {"--module.vision.projector=affine", "--train.dtype=bf16"}},
    {2, "tp2,dp1@0", "tp2,dp1@0", {"--train.freeze=vision.*"}},
    {2, "tp2,dp1@0", "tp2,dp1@0", {"--train.freeze=language.*"}},
    {2, "pp2,dp1@0", "pp2,dp1@0"},
    {2, "dp2@0", "dp2@0"},
    {2, "dp2@0", "tp2,dp1@0"},
    {3, "dp1@0", "tp2,dp1@1"},
    {3, "tp2,dp1@0", "tp2,dp1@1"},
    {3, "dp2@0", "pp2,dp1@1"},
    {3, "tp2,dp1@0", "dp1@2"},
    {3, "dp1@0", "pp2,dp1@1"},
    {3, "dp2@0", "dp1@2"},
    {3, "dp1@0", "dp2@1", {"--train.micro_batch=1"}},  // waves without an image
    {4, "dp4@0", "tp2,dp2@0"},
    {4, "dp3@0", "tp2,dp1@2"},
    {4, "tp2,dp1@0", "tp2,dp1@2", {"--train.micro_batch=1"}},
    {4, "dp4@0", "tp2,pp2,dp1@0"},
    {4, "tp2,dp2@0", "pp2,dp2@0", {"--train.freeze=vision.*"}},
    {4, "pp2,dp1@0", "pp2,dp1@2", {"--train.recompute=true"}},
};

std::vector<int64_t> numbers(const StepTraffic& t) {
  return {t.tensor.messages, t.tensor.bytes,       t.gradients.messages,
          t.gradients.bytes, t.transfers.messages, t.transfers.bytes};
}

TEST(Traffic, OfAPlanIsThatOfAStep) {
  Communicator& comm = test_comm();
  int ran = 0;
  for (const Case& c : kCases) {
    if (c.ranks != comm.size()) continue;
    ++ran;
    std::vector<std::string> overrides = {
        std::string("--layout.vision=") + c.vision, std::string("--layout.language=") + c.language,
        "--train.global_batch=12", "--train.micro_batch=3", "--data.workers=0"};
    overrides.insert(overrides.end(), c.more.begin(), c.more.end());
    std::string trace;
    for (const std::string& o : overrides) trace += o + " ";
    SCOPED_TRACE(trace);
    const Job job = make_job("tools/configs/digits.toml", overrides, comm.size());
    const Plan plan = job_plan(job);
    const PlannedStep planned = planned_step(job, Rates{}, plan);

    CountingWorld world(test_world());
    Trainer trainer(job, world);
    EXPECT_EQ(trainer.plan().order, plan.order);
    const Traffic before = world.world().reduced;
    trainer.step();
    // One message of the step's sums, as planned_step charges.
    EXPECT_EQ(world.world().reduced.messages, before.messages + 1);
    EXPECT_EQ(world.world().reduced.bytes, before.bytes + 8 * (3 + std::ssize(job.layout.modules)));
    // A trainer's groups of this rank come by purpose: those of layers, of gradients, and two of transfers.
    std::set<Ranks> tensor;
    for (const auto& [name, grid] : job.layout.modules)
      if (grid.tp > 1 && grid.contains(comm.rank())) tensor.insert(grid.group(comm.rank(), {Axis::tp}));
    const size_t transfers = world.groups.size() - 2;
    StepTraffic mine;
    for (size_t i = 0; i < world.groups.size(); ++i) {
      const Counting& group = *world.groups[i].counting;
      if (i >= transfers) {
        mine.transfers += group.sent;
        EXPECT_EQ(group.reduced.messages, 0);
      } else {
        (i < tensor.size() ? mine.tensor : mine.gradients) += group.reduced;
        EXPECT_EQ(group.sent.messages, 0);
      }
    }
    std::vector<int64_t> all = numbers(mine);
    comm.all_reduce({all.data(), static_cast<int64_t>(all.size()), DType::i64}, ReduceOp::sum,
                    current_stream())
        .wait();
    EXPECT_EQ(numbers(planned.traffic), all)
        << "tensor, gradients, transfers: messages and bytes; planned, then counted";
    // Each of them costs time.
    const auto span = [&](const Rates& r) { return planned_step(job, r, plan).timeline.makespan; };
    const double free = span({.latency = 0, .bandwidth = 1e18});
    EXPECT_GT(span({.latency = 1, .bandwidth = 1e18}), free + 1);
    if (all[1] + all[3] + all[5] > 0) {
      EXPECT_GT(span({.latency = 0, .bandwidth = 1}), free + 1);
    }
  }
  EXPECT_GT(ran, 0);
}

}  // namespace
}  // namespace mimo
