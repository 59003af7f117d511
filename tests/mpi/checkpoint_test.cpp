// Checkpoints over real ranks: a save, a load, and a rank that fails.
#include "io/checkpoint.h"

#include <unistd.h>

#include "main.h"

const char* const kRanks = "1 3";

namespace mimo {
namespace {

namespace fs = std::filesystem;

// The same on all ranks: the launcher is everyone's parent.
fs::path directory() {
  return fs::temp_directory_path() / ("mimo-checkpoint-" + std::to_string(::getppid()));
}

std::vector<ShardedTensor> tensors(float scale) {
  Communicator& comm = test_comm();
  const Dims shape = {7, 5};
  const Shard shard = split(shape, 0, {7}, comm.rank(), comm.size(), true);
  std::vector<float> values;
  for_each_run(shard, shape, [&](int64_t, int64_t global, int64_t count) {
    for (int64_t i = 0; i < count; ++i) values.push_back(scale * static_cast<float>(global + i));
  });
  return {{"x/value", shape, shard, Tensor::of<float>(values), true}};
}

std::string step_and_config(const TrainingState& s) {
  return std::to_string(s.step) + std::get<std::string>(s.scalars.at("config"));
}

TEST(MpiCheckpoint, SavesAndLoads) {
  save_checkpoint(test_comm(), directory(), {4, {{"config", "a = 1"}}}, tensors(1));
  const auto read = tensors(0);
  const TrainingState state = load_checkpoint(test_comm(), directory() / "step_00000004", read);
  EXPECT_EQ(step_and_config(state), "4a = 1");
  EXPECT_EQ(read[0].tensor.to_vector<float>(), tensors(1)[0].tensor.to_vector<float>());
}

TEST(MpiCheckpoint, AFailingRankIsEveryRanksError) {
  auto bad = tensors(2);
  if (test_comm().rank() == test_comm().size() - 1) bad[0].tensor = Tensor::zeros({1}, DType::f32);
  try {
    save_checkpoint(test_comm(), directory(), {5, {}}, bad);
    ADD_FAILURE() << "saved";
  } catch (const std::runtime_error& e) {
    EXPECT_NE(std::string(e.what()).find("x/value and its shard"), std::string::npos) << e.what();
  }
  test_comm().barrier();
  EXPECT_EQ(latest_checkpoint(directory()), directory() / "step_00000004");
  test_comm().barrier();
  if (test_comm().rank() == 0) fs::remove_all(directory());
}

}  // namespace
}  // namespace mimo
