// Gradients are summed while others are still computed: what the simulator promises is what a step does.
#include "parallel/simulate.h"
#include "tests/mpi/main.h"
#include "tools/run/trainer.h"

const char* const kRanks = "2 4";

namespace mimo {
namespace {

using Kind = Action::Kind;

// When the rank was busy with what, and from when to when sums were on their way, in turns of a counter.
struct Diary : Observer {
  explicit Diary(const int& count) : waits(count) {}
  const int& waits;  // for sums, until now
  int waits_inside = 0, waits_before = 0;

  struct Entry {
    Action action;
    int begin, end = -1;
  };
  std::vector<Entry> busy, sums;
  int now = 0;

  void begin(const Action& a) override {
    busy.push_back({a, now++});
    waits_before = waits;
  }
  void end(const Action& a) override {
    busy.back().end = now++;
    if (a.kind != Kind::reduce) waits_inside += waits - waits_before;
  }
  void started(const Action& a) override {
    if (a.kind == Kind::reduce) sums.push_back({a, now++});
  }
  void completed(const Action& a) override {
    for (Entry& e : sums)
      if (e.action == a) e.end = now++;
  }
};

// Sums that take their time: ready at the fourth look, or when they are waited for.
class Slow : public Communicator {
 public:
  Slow(std::shared_ptr<Communicator> inner, int& waits) : inner_(std::move(inner)), waits_(waits) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const Ranks& ranks() const override { return inner_->ranks(); }
  Work all_reduce(Buffer b, ReduceOp op, Stream& s) override {
    const auto sum = std::make_shared<Work>(inner_->all_reduce(b, op, s));
    return Work([sum, looks = 0, this](bool block) mutable {
      if (!block) return ++looks > 3 && sum->test();
      ++waits_;
      sum->wait();
      return true;
    });
  }
  Work all_gather(Buffer in, Buffer out, std::span<const int64_t> counts, Stream& s) override {
    return inner_->all_gather(in, out, counts, s);
  }
  Work reduce_scatter(Buffer in, Buffer out, std::span<const int64_t> counts, Stream& s) override {
    return inner_->reduce_scatter(in, out, counts, s);
  }
  Work broadcast(Buffer b, int root, Stream& s) override { return inner_->broadcast(b, root, s); }
  Work all_to_all(Buffer in, std::span<const int64_t> send, Buffer out, std::span<const int64_t> receive,
                  Stream& s) override {
    return inner_->all_to_all(in, send, out, receive, s);
  }
  Work exchange(std::span<const P2P> list, Stream& s) override { return inner_->exchange(list, s); }
  void barrier() override { inner_->barrier(); }
  void abort(std::string_view why) override { inner_->abort(why); }

 private:
  std::shared_ptr<Communicator> inner_;
  int& waits_;
};

struct SlowWorld : World {
  int waits = 0;
  Communicator& world() override { return test_world().world(); }
  std::shared_ptr<Communicator> create(const Ranks& ranks, const Limits& limits = {}) override {
    const auto inner = test_world().create(ranks, limits);
    return inner ? std::make_shared<Slow>(inner, waits) : nullptr;
  }
  int node_rank() const override { return test_world().node_rank(); }
  int node_size() const override { return test_world().node_size(); }
};

bool computes(const Action& a) { return a.kind == Kind::forward || a.kind == Kind::backward; }

TEST(Overlap, SumsOfGradientsRunWhileOthersCompute) {
  const int n = test_comm().size();
  const std::string lanes = "dp" + std::to_string(n) + "@0";
  // Buckets of a layer each; sums of half a megabyte, which take two rounds of messages.
  const Job job =
      make_job("tools/configs/digits.toml",
               {"--layout.vision=" + lanes, "--layout.language=" + lanes, "--train.bucket_bytes=1",
                "--module.language.hidden=256", "--module.language.ffn=512", "--data.workers=0",
                "--train.global_batch=16", "--train.micro_batch=2"},
               n);
  SlowWorld world;
  Trainer trainer(job, world);
  Diary diary(world.waits);
  trainer.observe(diary);
  trainer.step();

  const PlanGraph& graph = trainer.graph();
  const Plan mine = restrict_to(trainer.plan(), test_comm().rank(), graph);
  const int language = job.layout.index("language");
  ASSERT_EQ(graph.buckets(language, 0).size(), 7u);  // the head, five layers, the embedding
  // In the order of the plan, all of them, and all complete before the step's sums.
  std::vector<Action> planned, done;
  for (const Action& a : mine.order)
    if (a.kind == Kind::reduce) planned.push_back(a);
  for (const auto& e : diary.sums) done.push_back(e.action);
  EXPECT_EQ(done, planned);
  const auto step = std::find_if(diary.busy.begin(), diary.busy.end(),
                                 [](const auto& e) { return e.action.kind == Kind::step_reduce; });
  ASSERT_NE(step, diary.busy.end());
  for (const auto& e : diary.sums) {
    EXPECT_GE(e.end, 0);
    EXPECT_LT(e.end, step->begin);
  }
  // What the rank was busy with is what the plan says, in its order, but for what it waited for.
  std::vector<Action> order;
  for (const auto& e : diary.busy)
    if (computes(e.action)) order.push_back(e.action);
  std::erase_if(planned = mine.order, [](const Action& a) { return !computes(a); });
  EXPECT_EQ(order, planned);

  // Sums start inside the backward that completes them, and some are on their way during it and after it.
  const auto last_backward = std::find_if(diary.busy.rbegin(), diary.busy.rend(), [&](const auto& e) {
    return e.action.kind == Kind::backward && e.action.module == language;
  });
  ASSERT_NE(last_backward, diary.busy.rend());
  int inside = 0, beside = 0;
  for (const auto& e : diary.sums) {
    inside += e.action.module == language && e.begin > last_backward->begin && e.begin < last_backward->end;
    beside += std::any_of(diary.busy.begin(), diary.busy.end(), [&](const auto& b) {
      return computes(b.action) && e.begin < b.end && b.begin < e.end;
    });
  }
  EXPECT_EQ(inside, 6);  // all but the last one, which is complete at its end
  EXPECT_GE(beside, 6);
  EXPECT_EQ(diary.waits_inside, 0);  // nothing that computes waits for a sum

  // The simulator sees the same: with sums that take time, they run beside what computes.
  const Timeline t = simulate(trainer.plan(), graph);
  int promised = 0;
  for (size_t i = 0; i < t.spans.size(); ++i) {
    if (trainer.plan().order[i].kind != Kind::reduce) continue;
    for (size_t k = 0; k < t.spans.size(); ++k)
      if (computes(trainer.plan().order[k]) && t.spans[i].start < t.spans[k].end &&
          t.spans[k].start < t.spans[i].end) {
        ++promised;
        break;
      }
  }
  EXPECT_GE(promised, 3);
}

}  // namespace
}  // namespace mimo
