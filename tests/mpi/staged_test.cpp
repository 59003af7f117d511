// Device memory staged through the host: the cases of all communicators, on a CUDA runtime that does queued
// work as late as it may and whose device memory the host cannot touch.
#include "communicator_cases.h"

#include <numeric>
#include <set>

#include "parallel/device_world.h"
#include "parallel/watchdog.h"
#include "tensor/pinned.h"
#include "tensor/transfer.h"

const char* const kRanks = "1 2 3 4";

namespace mimo {

std::shared_ptr<Communicator> subject::create(const Ranks& ranks, const Limits& limits) {
  const auto host = test_world().create(ranks, limits);
  return host && host->size() > 1 ? staged_communicator(host) : host;
}
const Device subject::device{Device::Kind::cuda, 0};
const bool subject::strict = true;
Stream& subject::stream() {
  static Stream stream{subject::device, Cuda{.stream = cuda::create_stream()}};
  return stream;
}

namespace {

TEST(Staged, HostAndDeviceMessagesOfAPairKeepTheirOrder) {
  const auto comm = everyone();
  const int n = comm->size(), next = (comm->rank() + 1) % n, last = (comm->rank() + n - 1) % n;
  if (n == 1) return;
  std::vector<int32_t> sent = {comm->rank()}, received = {-1};
  const Data<int32_t> out(1, 100 + comm->rank()), in(1, -1);
  comm->exchange(std::vector<P2P>{{true, next, Buffer(sent.data(), 1, DType::i32)},
                                  {true, next, out},
                                  {false, last, Buffer(received.data(), 1, DType::i32)},
                                  {false, last, in}},
                 stream())
      .wait();
  EXPECT_EQ(received[0], last);
  EXPECT_EQ(in.get()[0], 100 + last);
}

// A receiver never waits for its stream, so copies to the device pile up there: no message may arrive in
// pinned memory that an earlier one is still to be copied from.
TEST(Staged, AReceiverReusesPinnedMemoryWhenItsCopiesAreDone) {
  const auto comm = everyone();
  const bool sends = comm->rank() == 0;
  std::vector<Data<int32_t>> x;
  for (int i = 0; i < 20; ++i) {
    x.emplace_back(100, sends ? i : -1);
    comm->broadcast(x.back(), 0, stream()).wait();
    std::vector<P2P> messages;
    x.emplace_back(100, sends ? 1000 + i : -1);
    for (int peer = 1; peer < comm->size(); ++peer)
      if (sends || peer == comm->rank()) messages.push_back({sends, sends ? peer : 0, x.back()});
    comm->exchange(messages, stream()).wait();
  }
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(x[2 * i].get(), std::vector<int32_t>(100, i));
    EXPECT_EQ(x[2 * i + 1].get(), std::vector<int32_t>(100, 1000 + i));
  }
}

TEST(Staged, HostMemoryPassesThrough) {
  const auto comm = everyone();
  int64_t sum = 1;
  comm->all_reduce({&sum, 1, DType::i64}, ReduceOp::sum, stream()).wait();
  EXPECT_EQ(sum, comm->size());
  comm->barrier();
  EXPECT_EQ(comm->failure(), "");
}

// A block of pinned memory is not written to while an earlier copy from it waits in its stream.
TEST(Staged, PinnedMemoryIsReusedWhenItsCopiesAreDone) {
  const auto comm = everyone();
  std::vector<Data<int64_t>> x;
  for (int64_t i = 0; i < 20; ++i) {
    x.emplace_back(100, i * (comm->rank() + 1));
    comm->all_reduce(x.back(), ReduceOp::sum, stream()).wait();
  }
  const int64_t n = comm->size();
  for (int64_t i = 0; i < 20; ++i)
    EXPECT_EQ(x[i].get(), std::vector<int64_t>(100, n == 1 ? i : i * n * (n + 1) / 2));
}

TEST(Pinned, BlocksComeBackWhenTheirCopiesAreDone) {
  constexpr int64_t kBytes = int64_t{1} << 20;
  const Data<int64_t> x(1, 0);
  const auto used = [&](const std::shared_ptr<PinnedBlock>& block) {
    for (int i = 0; i < 10; ++i) cuda::copy(Buffer(x).data, block->data(), 8, stream().handle());
    block->in_use(stream());
    return block->data();
  };
  const char *first = used(pinned_block(kBytes)), *second = used(pinned_block(kBytes - 1));
  EXPECT_NE(first, second);
  EXPECT_EQ(pinned_block(kBytes, 2)->data(), first);  // two wait: the host does, for the older
  synchronize(stream());
  const auto a = pinned_block(kBytes), b = pinned_block(kBytes), c = pinned_block(kBytes);
  EXPECT_EQ((std::set<const char*>{a->data(), b->data()}), (std::set<const char*>{first, second}));
  EXPECT_NE(c->data(), first);
  EXPECT_NE(c->data(), second);
}

// More than may wait in pinned memory.
TEST(Transfer, LargeOnesArriveWhole) {
  std::vector<int64_t> values(int64_t{9} << 20), back(values.size());
  std::iota(values.begin(), values.end(), test_comm().rank());
  const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(int64_t));
  void* device = cuda::allocate_device(bytes, 0);
  upload(device, values.data(), bytes, stream());
  download(back.data(), device, bytes, stream());
  cuda::free_device(device, 0);
  EXPECT_TRUE(back == values);
}

TEST(DeviceWorld, StagesAndSaysSo) {
  const auto world = device_world(test_world(), subject::device);
  const int n = test_comm().size();
  EXPECT_EQ(world->transport(),
            n == 1 ? "one rank, no messages"
                   : std::to_string(n) + " ranks: staged through host memory (built without NCCL)");
  EXPECT_EQ(world->world().ranks(), test_comm().ranks());
  EXPECT_EQ(world->node_size(), n);
  EXPECT_EQ(world->failure(), "");
  std::vector<std::shared_ptr<Communicator>> all = {world->create(test_comm().ranks())};
  if (test_comm().rank() > 0)
    EXPECT_EQ(world->create({0}), nullptr);
  else
    all.push_back(world->create({0}));
  for (const auto& comm : all) {
    const Data<int32_t> x(3, 2);
    comm->all_reduce(x, ReduceOp::sum, stream()).wait();
    EXPECT_EQ(x.get(), std::vector<int32_t>(3, 2 * comm->size()));
  }
  const Data<int32_t> x(3, 1);
  world->world().all_reduce(x, ReduceOp::sum, stream()).wait();
  EXPECT_EQ(x.get(), std::vector<int32_t>(3, n));
  world->world().barrier();
}

TEST(DeviceWorld, NcclIsForGroupsWithAGpuEach) {
  const RankPlace a{"m1", "alpha", "00:1", 0, ""}, b{"m1", "alpha", "00:2", 1, ""},
      c{"m2", "beta", "00:1", 0, ""};
  const std::vector<RankPlace> apart = {a, b, c}, shared = {a, b, c, b, b};
  EXPECT_TRUE(uses_nccl(apart, false));
  EXPECT_EQ(describe_transport(apart, false), "3 ranks, each with its own GPU: NCCL");
  EXPECT_FALSE(uses_nccl(shared, false));
  EXPECT_TRUE(uses_nccl(std::span(shared).first(3), false));
  EXPECT_TRUE(uses_nccl(shared, true));
  EXPECT_EQ(describe_transport(shared, false),
            "ranks 1,3-4 share GPU 1 of alpha: staged through host memory; NCCL in groups with a GPU each");
  EXPECT_EQ(describe_transport(shared, true),
            "ranks 1,3-4 share GPU 1 of alpha: NCCL over loopback sockets, for tests (MIMO_NCCL_SHARE_GPU)");
  EXPECT_EQ(describe_transport(std::vector<RankPlace>{a, a}, false),
            "ranks 0-1 share GPU 0 of alpha: staged through host memory");
  RankPlace without = b;
  without.why_no_nccl = "no library";
  const std::vector<RankPlace> some = {a, without};
  EXPECT_FALSE(uses_nccl(some, true));
  EXPECT_EQ(describe_transport(some, false),
            "2 ranks: staged through host memory in groups with rank 1, without NCCL (no library)");
}

}  // namespace
}  // namespace mimo
