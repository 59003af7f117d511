#include <gtest/gtest.h>

#include "parallel/threads.h"
#include "parallel/world.h"

namespace mimo {
namespace {

TEST(SelfCommunicator, EveryOperationIsACopyOrNothing) {
  const auto self = self_communicator(3);
  EXPECT_EQ(self->ranks(), Ranks{3});
  Stream& stream = current_stream();
  std::vector<float> x = {1, 2, 3}, y(3);
  const std::vector<int64_t> three = {3};
  const Buffer in(x.data(), 3, DType::f32), out(y.data(), 3, DType::f32);
  self->all_reduce(in, ReduceOp::sum, stream).wait();
  self->broadcast(in, 0, stream).wait();
  EXPECT_EQ(x, (std::vector<float>{1, 2, 3}));
  for (int way = 0; way < 3; ++way) {
    y.assign(3, 0);
    if (way == 0) self->all_gather(in, out, three, stream).wait();
    if (way == 1) self->reduce_scatter(in, out, three, stream).wait();
    if (way == 2) self->all_to_all(in, three, out, three, stream).wait();
    EXPECT_EQ(y, x) << way;
  }
  self->all_gather(in, in, three, stream).wait();
  EXPECT_THROW(self->all_gather(in, {y.data(), 2, DType::f32}, three, stream), std::logic_error);
  self->barrier();
}

TEST(SelfCommunicator, ExchangesWithItselfInOrderAcrossCalls) {
  const auto self = self_communicator();
  Stream& stream = current_stream();
  const Tensor a = Tensor::zeros({2}, DType::f32), b = Tensor::zeros({1}, DType::f32);
  const std::vector<P2P> receives = {
      {false, 0, a}, {false, 0, Tensor::zeros({0}, DType::f32)}, {false, 0, b}};
  Work received = self->exchange(receives, stream);
  EXPECT_FALSE(received.test());
  EXPECT_THROW(Work(received).wait(), std::logic_error) << "nobody will ever send";
  const std::vector<P2P> sends = {{true, 0, Tensor::of<float>({1, 2})}, {true, 0, Tensor::of<float>({3})}};
  self->exchange(sends, stream).wait();
  received.wait();
  EXPECT_EQ(a.to_vector<float>(), (std::vector<float>{1, 2}));
  EXPECT_EQ(b.to_vector<float>(), (std::vector<float>{3}));
  const P2P stray{true, 1, a};
  EXPECT_THROW(self->exchange(std::span(&stray, 1), stream), std::logic_error);
}

TEST(SelfWorld, HasOneRank) {
  const auto world = self_world();
  EXPECT_EQ(world->world().size(), 1);
  EXPECT_NE(world->create({0}), nullptr);
  EXPECT_EQ(world->create({1}), nullptr);
  EXPECT_EQ(world->node_size(), 1);
}

TEST(Nccl, IsRefusedInABuildWithoutIt) {
  const auto self = self_communicator();
  EXPECT_EQ(why_no_nccl(), "built without NCCL");
  EXPECT_THROW(nccl_communicator(self, Device{Device::Kind::cuda, 0}), std::runtime_error);
}

TEST(Threads, RanksShareCoresWithoutOverlap) {
  const std::vector<int> cores = {0, 1, 2, 3, 8, 9, 10};
  for (int ranks = 1; ranks < 7; ++ranks) {
    std::vector<int> all;
    for (int r = 0; r < ranks; ++r) {
      const CoreShare share = core_share(cores, 7, r, ranks);
      EXPECT_EQ(share.threads, 7 / ranks);
      EXPECT_GE(static_cast<int>(share.cores.size()), share.threads);
      all.insert(all.end(), share.cores.begin(), share.cores.end());
    }
    EXPECT_EQ(all, cores);
  }
}

TEST(Threads, AsManyRanksAsCoresShareAllOfThem) {
  for (int ranks : {2, 3, 100}) {
    const CoreShare share = core_share({4, 5}, 2, ranks - 1, ranks);
    EXPECT_EQ(share.cores, (std::vector<int>{4, 5}));
    EXPECT_EQ(share.threads, 1);
  }
}

TEST(Threads, AQuotaLimitsThreadsNotCores) {
  const CoreShare share = core_share({0, 1, 2, 3, 4, 5, 6, 7}, 4, 1, 2);
  EXPECT_EQ(share.cores.size(), 8u);
  EXPECT_EQ(share.threads, 2);
}

TEST(Threads, TheMachineHasCores) {
  const std::vector<int> cores = available_cores();
  EXPECT_FALSE(cores.empty());
  EXPECT_GE(usable_cores(), 1);
  EXPECT_LE(usable_cores(), static_cast<int>(cores.size()));
}

}  // namespace
}  // namespace mimo
