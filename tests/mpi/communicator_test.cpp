// MPI on host memory: the cases of all communicators, and the world's own.
#include "communicator_cases.h"

#include <random>

#include "parallel/groups.h"

const char* const kRanks = "1 2 3 5";

namespace mimo {

std::shared_ptr<Communicator> subject::create(const Ranks& ranks, const Limits& limits) {
  return test_world().create(ranks, limits);
}
const Device subject::device{};
const bool subject::strict = true;
Stream& subject::stream() { return current_stream(); }

namespace {

TEST(Buffer, IsOfAContiguousTensorAndKeepsItsMemory) {
  const Tensor t = Tensor::zeros({4, 4}, DType::f32);
  EXPECT_THROW(Buffer(t.columns(0, 2)), std::logic_error);
  const long before = t.storage_use_count();
  const Buffer b(t.slice(1, 3));
  EXPECT_EQ(b.count, 8);
  EXPECT_EQ(t.storage_use_count(), before + 1);
}

TEST(Communicator, MpiRefusesDeviceMemory) {
  Communicator& comm = test_comm();
  float x = 0;
  const Buffer device(&x, 1, DType::f32, Device{Device::Kind::cuda, 0});
  EXPECT_THROW(comm.broadcast(device, 0, stream()), std::logic_error);
}

TEST(World, GroupsKeepTheOrderOfTheirRanks) {
  const int n = test_comm().size(), me = test_comm().rank();
  Ranks reversed;
  for (int r = n - 1; r >= 0; --r) reversed.push_back(r);
  const auto comm = test_world().create(reversed);
  EXPECT_EQ(comm->ranks(), reversed);
  EXPECT_EQ(comm->rank(), n - 1 - me);
  EXPECT_EQ(comm->size(), n);
  for (int r = 0; r < n; ++r) {
    const auto single = test_world().create({r});
    ASSERT_EQ(single != nullptr, r == me);
    if (single) {
      EXPECT_EQ(single->ranks(), Ranks{r});
      EXPECT_EQ(single->size(), 1);
    }
  }
}

// A world that counts what it creates.
struct Creations : World {
  std::vector<Ranks> made;
  Communicator& world() override { return test_comm(); }
  std::shared_ptr<Communicator> create(const Ranks& ranks, const Limits& limits) override {
    made.push_back(ranks);
    return test_world().create(ranks, limits);
  }
  int node_rank() const override { return 0; }
  int node_size() const override { return 1; }
};

TEST(Groups, OverlappingOnesInOneOrderDoNotWaitForEachOther) {
  const int n = test_comm().size(), me = test_comm().rank();
  std::vector<Group> groups;  // every interval of ranks, of two purposes, some of them twice
  for (int a = 0; a < n; ++a)
    for (int b = a + 1; b <= n; ++b) {
      Ranks g;
      for (int r = a; r < b; ++r) g.push_back(r);
      groups.push_back({Purpose::gradients, g});
      if (a % 2) groups.push_back({Purpose::gradients, g});
      groups.push_back({Purpose::layers, g});
    }
  std::this_thread::sleep_for(std::chrono::milliseconds(5 * ((7 * me) % n)));
  std::shuffle(groups.begin(), groups.end(), std::mt19937(me));
  Creations world;
  const Groups made(world, groups);
  const size_t with_me = 2 * static_cast<size_t>((me + 1) * (n - me));
  EXPECT_EQ(world.made.size(), with_me) << "each once, and those of this rank alone";
  EXPECT_TRUE(std::is_sorted(world.made.begin(), world.made.begin() + with_me / 2));
  EXPECT_TRUE(std::is_sorted(world.made.begin() + with_me / 2, world.made.end()));
  std::sort(groups.begin(), groups.end());
  for (const auto& [purpose, g] : groups) {
    if (std::find(g.begin(), g.end(), me) == g.end()) continue;
    int64_t sum = me;
    made.at(purpose, g).all_reduce({&sum, 1, DType::i64}, ReduceOp::sum, stream()).wait();
    EXPECT_EQ(sum, int64_t{g.front() + g.back()} * static_cast<int64_t>(g.size()) / 2);
  }
  EXPECT_THROW(made.at(Purpose::layers, {n, n + 1}), std::logic_error);
  EXPECT_THROW(made.at(Purpose::transfers_forward, {me}), std::logic_error);
}

// Two purposes among the same ranks, which each rank begins in an order of its own.
TEST(Groups, PurposesDoNotMeetEachOther) {
  const int n = test_comm().size(), me = test_comm().rank();
  if (n == 1) return;
  const Ranks all = test_comm().ranks();
  const Groups made(test_world(), {{Purpose::layers, all}, {Purpose::gradients, all}});
  const Purpose purposes[] = {Purpose::layers, Purpose::gradients};
  int64_t sent[2] = {10 + me, 20 + me}, got[2] = {};
  Work work[2];
  for (int k = 0; k < 2; ++k) {
    const int i = (k + me) % 2;
    const P2P messages[] = {{true, (me + 1) % n, {&sent[i], 1, DType::i64}},
                            {false, (me + n - 1) % n, {&got[i], 1, DType::i64}}};
    work[i] = made.at(purposes[i], all).exchange(messages, stream());
  }
  work[0].wait();
  work[1].wait();
  EXPECT_EQ(got[0], 10 + (me + n - 1) % n);
  EXPECT_EQ(got[1], 20 + (me + n - 1) % n);
}

TEST(World, KnowsItsMachine) {
  EXPECT_EQ(test_world().node_size(), test_comm().size());  // tests run on one machine
  EXPECT_EQ(test_world().node_rank(), test_comm().rank());
  test_comm().barrier();
}

}  // namespace
}  // namespace mimo
