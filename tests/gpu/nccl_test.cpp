// NCCL between GPUs: the cases of all communicators. By hand, on a machine with one GPU or more:
//   make gpu-mpi-tests && mpirun --oversubscribe -n 2 build/gpu/nccl_test
// Ranks that share a GPU talk over loopback sockets (MIMO_NCCL_SHARE_GPU, set here unless it is set).
#include <cstdlib>
#include <map>

#include "parallel/device_world.h"
#include "tests/mpi/communicator_cases.h"

const char* const kRanks = "1 2 4";

namespace mimo {
namespace {

// Made once: creating a communicator takes up to a second. It ends before MPI does.
std::unique_ptr<World> device;

class OpenDevice : public testing::Environment {
 public:
  void SetUp() override {
    setenv("MIMO_NCCL_SHARE_GPU", "1", 0);
    ASSERT_GT(cuda::device_count(), 0) << cuda::why_no_device();
    cuda::use_device(subject::device.index);
    device = device_world(test_world(), subject::device);
    if (test_comm().rank() == 0) std::printf("%s\n", device->transport().c_str()), std::fflush(stdout);
  }
  void TearDown() override;
};
const auto* const opened = testing::AddGlobalTestEnvironment(new OpenDevice);

using Key = std::pair<Ranks, int64_t>;  // and the limit of a message
std::map<Key, std::shared_ptr<Communicator>> made;

void OpenDevice::TearDown() {
  made.clear();
  device.reset();
}

int local_rank() {
  const char* rank = std::getenv("OMPI_COMM_WORLD_LOCAL_RANK");
  return rank ? std::atoi(rank) : 0;
}

}  // namespace

std::shared_ptr<Communicator> subject::create(const Ranks& ranks, const Limits& limits) {
  const auto [at, is_new] = made.try_emplace({ranks, limits.message});
  if (is_new) at->second = mimo::device->create(ranks, limits);
  return at->second;
}
const Device subject::device{Device::Kind::cuda, local_rank() % std::max(1, cuda::device_count())};
const bool subject::strict = false;
Stream& subject::stream() {
  static Stream stream{subject::device,
                       Cuda{.stream = cuda::create_stream(), .device = subject::device.index}};
  return stream;
}

namespace {

TEST(Nccl, IsWhatIsTested) {
  ASSERT_EQ(why_no_nccl(), "");
  EXPECT_EQ(device->failure(), "");
  EXPECT_TRUE(test_comm().size() == 1 || device->transport().find("NCCL") != std::string::npos);
}

// wait() is the stream's, not the host's: work queued after it sees the sum, with no word to the host
// between.
TEST(Nccl, OperationsFollowEachOtherWithoutTheHost) {
  const auto comm = everyone();
  const int64_t n = 1 << 20;
  const Data<int32_t> x(n, 1), y(n, 0);
  int32_t expected = 1;
  for (int i = 0; i < 5; ++i) {
    comm->all_reduce(x, ReduceOp::sum, stream()).wait();
    expected *= comm->size();
    copy(x, y, stream());
  }
  EXPECT_EQ(y.get(), std::vector<int32_t>(n, expected));
}

TEST(Nccl, HostMemoryGoesToMpi) {
  const auto comm = everyone();
  double sum = 1;
  comm->all_reduce({&sum, 1, DType::f64}, ReduceOp::sum, stream()).wait();
  EXPECT_EQ(sum, comm->size());
}

}  // namespace
}  // namespace mimo
