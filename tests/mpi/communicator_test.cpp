// MPI on host memory: the cases of all communicators, and the world's own.
#include "communicator_cases.h"

#include <random>

#include "parallel/reduce.h"

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

TEST(World, OverlappingGroupsInOneOrderDoNotWaitForEachOther) {
  const int n = test_comm().size(), me = test_comm().rank();
  std::vector<Ranks> groups;  // every interval of ranks
  for (int a = 0; a < n; ++a)
    for (int b = a + 2; b <= n; ++b) {
      Ranks g;
      for (int r = a; r < b; ++r) g.push_back(r);
      if (a <= me && me < b) groups.push_back(g);
    }
  std::this_thread::sleep_for(std::chrono::milliseconds(5 * ((7 * me) % n)));
  std::shuffle(groups.begin(), groups.end(), std::mt19937(me));
  const Groups made(test_world(), groups);
  std::sort(groups.begin(), groups.end());
  for (const Ranks& g : groups) {
    int64_t sum = me;
    made.at(g).all_reduce({&sum, 1, DType::i64}, ReduceOp::sum, stream()).wait();
    EXPECT_EQ(sum, int64_t{g.front() + g.back()} * static_cast<int64_t>(g.size()) / 2);
  }
  EXPECT_THROW(made.at({n, n + 1}), std::logic_error);
}

TEST(World, KnowsItsMachine) {
  EXPECT_EQ(test_world().node_size(), test_comm().size());  // tests run on one machine
  EXPECT_EQ(test_world().node_rank(), test_comm().rank());
  test_comm().barrier();
}

}  // namespace
}  // namespace mimo
