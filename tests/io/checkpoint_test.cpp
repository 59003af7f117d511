#include "io/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/file.h"
#include "io/hdf5.h"
#include "parallel/optimizer.h"
#include "parallel/transports.h"
#include "tests/io/temp_dir.h"
#include "tests/io/thread_ranks.h"

namespace mimo {
namespace {

namespace fs = std::filesystem;

// Byte b of element g of a tensor: any pattern of finite numbers will do, as comparisons are of bytes.
// Without bit 6, the second of an element's last byte, no exponent is all ones.
char pattern(const std::string& name, int64_t g, int64_t b, int version) {
  const size_t byte = std::hash<std::string>()(name) + static_cast<size_t>(g * 131 + b * 29 + version);
  return static_cast<char>(byte & 0xbf);
}

void fill(const ShardedTensor& t, int version) {
  const int64_t size = size_of(t.tensor.dtype());
  char* data = static_cast<char*>(t.tensor.raw());
  for_each_run(t.shard, t.shape, [&](int64_t local, int64_t global, int64_t count) {
    for (int64_t i = 0; i < count * size; ++i)
      data[local * size + i] = pattern(t.name, global + i / size, i % size, version);
  });
}

// The first element that is not the pattern, or "".
std::string difference(const ShardedTensor& t, int version) {
  std::string first;
  const int64_t size = size_of(t.tensor.dtype());
  const char* data = static_cast<const char*>(t.tensor.raw());
  for_each_run(t.shard, t.shape, [&](int64_t local, int64_t global, int64_t count) {
    for (int64_t i = 0; i < count * size; ++i)
      if (first.empty() && data[local * size + i] != pattern(t.name, global + i / size, i % size, version))
        first = t.name + " differs at global element " + std::to_string(global + i / size);
  });
  return first;
}

struct Spec {
  const char* name;
  Dims shape;
  int axis;  // -1: every rank holds all of it, rank 0 writes; -2: on one rank alone; -3: cut flat
  std::vector<int64_t> blocks;  // along the axis
  DType dtype;
};

// Every way in which a parameter or a moment is laid out.
const std::vector<Spec>& specs() {
  static const std::vector<Spec> all = {
      {"language.embed.weight/value", {7, 4}, 0, {7}, DType::bf16},
      {"language.layers.0.mixer.in_proj.weight/value",
       {28, 6},
       0,
       {8, 8, 4, 4, 4},
       DType::bf16},                                                              // z x B C dt
      {"language.layers.0.mixer.in_proj.weight/m", {28, 6}, -3, {}, DType::f32},  // slices of an optimizer
      {"language.layers.0.mixer.conv1d.weight/value", {8, 1, 3}, 0, {4, 4}, DType::f32},
      {"language.layers.0.mixer.out_proj.weight/value", {6, 9}, 1, {9}, DType::bf16},
      {"language.layers.1.experts.weight/value", {3, 4, 5}, 1, {2, 2}, DType::f32},
      {"language.layers.1.fused.weight/value", {3, 12}, 1, {8, 4}, DType::f64},
      {"language.norm.weight/value", {5}, -1, {}, DType::f32},
      {"vision.patch.weight/value", {4, 2}, -2, {}, DType::f32},
      {"vision.nothing/value", {0, 3}, -1, {}, DType::f32}};
  return all;
}

std::vector<ShardedTensor> model(int rank, int ranks) {
  std::vector<ShardedTensor> all;
  for (const Spec& s : specs()) {
    ShardedTensor t{s.name, s.shape, whole(s.shape), {}, true};
    const int64_t n = numel(s.shape);
    if (s.axis == -1) t.writes = rank == 0;
    if (s.axis == -2 && rank != ranks - 1) continue;
    if (s.axis == -3) t.shard = cut(t.shard, n * rank / ranks, n * (rank + 1) / ranks);
    if (s.axis >= 0) t.shard = split(s.shape, s.axis, s.blocks, rank, ranks, true);
    t.tensor = Tensor::zeros({numel(t.shard)}, s.dtype);
    all.push_back(t);
  }
  return all;
}

TrainingState state_at(int64_t step) {
  return {step,
          {{"position", step * 32}, {"best", 0.1}, {"whole", 3.0}, {"config", "a = \"\xc3\xa9\"\n[b]\n"}}};
}

// The error that all ranks threw alike; "" if none did.
std::string common_error(const std::vector<std::exception_ptr>& errors) {
  std::vector<std::string> texts;
  for (const std::exception_ptr& e : errors) {
    texts.emplace_back();
    try {
      if (e) std::rethrow_exception(e);
    } catch (const ConfigError& c) {
      texts.back() = std::string("config: ") + c.what();
    } catch (const std::exception& x) {
      texts.back() = x.what();
    }
  }
  for (const std::string& t : texts) EXPECT_EQ(t, texts[0]) << "ranks threw different errors";
  return texts[0];
}

std::string save(const fs::path& dir, int64_t step, int ranks, int64_t keep = 0) {
  return common_error(ThreadRanks::run(ranks, [&](Communicator& comm) {
    const auto tensors = model(comm.rank(), ranks);
    for (const ShardedTensor& t : tensors) fill(t, static_cast<int>(step));
    save_checkpoint(comm, dir, state_at(step), tensors, keep);
  }));
}

// Loads and compares; returns the error.
std::string load(const fs::path& checkpoint, int64_t step, int ranks) {
  return common_error(ThreadRanks::run(ranks, [&](Communicator& comm) {
    const auto tensors = model(comm.rank(), ranks);
    const TrainingState state = load_checkpoint(comm, checkpoint, tensors);
    EXPECT_EQ(state.step, step);
    EXPECT_EQ(state.scalars, state_at(step).scalars);
    for (const ShardedTensor& t : tensors) EXPECT_EQ(difference(t, static_cast<int>(step)), "");
  }));
}

std::vector<std::string> names_in(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& e : fs::directory_iterator(dir)) names.push_back(e.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}
using Strings = std::vector<std::string>;

class Reshard : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(Reshard, EveryBitOfEveryTensorOnAnyNumberOfRanks) {
  const auto [from, to] = GetParam();
  TempDir dir;
  ASSERT_EQ(save(dir.path(), 10, from), "");
  EXPECT_EQ(load(dir / "step_00000010", 10, to), "");
}
INSTANTIATE_TEST_SUITE_P(All, Reshard,
                         testing::Combine(testing::Values(1, 2, 3, 4), testing::Values(1, 2, 3, 5)));

TEST(Checkpoint, OneRankWithItsOwnCommunicator) {
  TempDir dir;
  const auto comm = self_communicator();
  Parameter p;
  p.name = "language.norm.weight";
  p.shape = {3};
  p.shard = whole(p.shape);
  p.value = Tensor::of<float>({1, 2, 3});
  p.copies = {0};
  save_checkpoint(*comm, dir.path(), {1, {}}, std::vector{sharded_value(p, 0)});
  p.value = Tensor::zeros({3}, DType::f32);
  load_checkpoint(*comm, dir / "step_00000001", std::vector{sharded_value(p, 0)});
  EXPECT_EQ(p.value.to_vector<float>(), (std::vector<float>{1, 2, 3}));
}

TEST(Checkpoint, TheFirstCopyWrites) {
  Parameter p;
  p.copies = {2, 5};
  EXPECT_TRUE(sharded_value(p, 2).writes);
  EXPECT_FALSE(sharded_value(p, 5).writes);
  p.copies = {};
  EXPECT_TRUE(sharded_value(p, 5).writes);
}

// A rank's parameter and an optimizer of a part of its state: the whole parameter on every rank, and of what
// is kept for it one of `ranks` parts that differ in size.
struct Learner {
  Parameter p;
  std::unique_ptr<Optimizer> optimizer;
  Learner(int rank, int ranks) {
    p.name = "language.fused.weight", p.shape = {3, 12};
    p.shard = split(p.shape, 1, {8, 4}, 0, 1);
    for (int r = 0; r < ranks; ++r) p.copies.push_back(r);
    materialize(p, DType::bf16, 1);
    optimizer = std::make_unique<Optimizer>(std::vector{&p}, AdamOptions{}, [=](const Parameter& q) {
      const int64_t n = q.value.numel();
      const auto end = [&](int r) { return r * r * n / (ranks * ranks); };
      return Optimizer::Portion{end(rank), end(rank + 1), {rank}};
    });
  }
  std::vector<ShardedTensor> tensors(int rank) const {
    std::vector<ShardedTensor> all = optimizer->tensors(rank);
    all.push_back(sharded_value(p, rank));
    return all;
  }
};

TEST(Checkpoint, AStateMayBeCutUnlikeItsParameter) {
  for (const int from : {1, 2, 3})
    for (const int to : {1, 2, 3}) {
      TempDir dir;
      EXPECT_EQ(common_error(ThreadRanks::run(from,
                                              [&](Communicator& comm) {
                                                const Learner l(comm.rank(), from);
                                                const auto tensors = l.tensors(comm.rank());
                                                EXPECT_EQ(tensors.size(), 4u);
                                                for (const ShardedTensor& t : tensors) fill(t, 7);
                                                save_checkpoint(comm, dir.path(), {7, {}}, tensors);
                                              })),
                "");
      const auto read = [&](bool weights_alone) {
        return common_error(ThreadRanks::run(to, [&](Communicator& comm) {
          const Learner l(comm.rank(), to);
          std::vector<ShardedTensor> tensors = l.tensors(comm.rank());
          if (weights_alone) tensors.erase(tensors.begin(), tensors.end() - 1);
          for (const ShardedTensor& t : tensors) mimo::fill(t.tensor, 0);
          const auto state = [&](const std::string& name) {
            return weights_alone && !name.ends_with("/value");
          };
          load_checkpoint(comm, dir / "step_00000007", tensors, state);
          for (const ShardedTensor& t : tensors) EXPECT_EQ(difference(t, 7), "") << from << " to " << to;
        }));
      };
      EXPECT_EQ(read(false), "");
      EXPECT_EQ(read(true), "");
    }
}

TEST(Checkpoint, AnyHdf5ClientSeesWholeTensorsByName) {
  TempDir dir;
  ASSERT_EQ(save(dir.path(), 10, 3), "");
  const h5::File index = h5::File::open(dir / "step_00000010" / "index.h5");
  for (const Spec& s : specs()) {
    const h5::Dataset d = index.dataset(s.name);
    EXPECT_EQ(d.shape(), s.shape);
    EXPECT_EQ(d.dtype(), s.dtype);
    const ShardedTensor t{s.name, s.shape, whole(s.shape), Tensor::zeros(s.shape, s.dtype), true};
    d.read({Dims(s.shape.size(), 0), s.shape}, s.dtype, t.tensor.raw());
    EXPECT_EQ(difference(t, 10), "");
  }
  // And parts, with where they belong, in the shards.
  const h5::Dataset box = h5::File::open(dir / "step_00000010" / "rank_00001.h5")
                              .dataset("/language.layers.0.mixer.in_proj.weight/value/box1");
  EXPECT_EQ(box.attribute<int64_t>("start"), (std::vector<int64_t>{10, 0}));  // x, after 8 rows of z
  EXPECT_EQ(box.attribute<int64_t>("shape"), (std::vector<int64_t>{28, 6}));
}

TEST(Checkpoint, SameStateSameBytes) {
  TempDir a, b;
  ASSERT_EQ(save(a.path(), 10, 2), "");
  ASSERT_EQ(save(b.path(), 10, 2), "");
  const Strings names = {"index.h5", "manifest.json", "rank_00000.h5", "rank_00001.h5"};
  EXPECT_EQ(names_in(a / "step_00000010"), names);
  for (const std::string& name : names)
    EXPECT_TRUE(read_text(a / "step_00000010" / name) == read_text(b / "step_00000010" / name)) << name;
}

TEST(Checkpoint, LatestIsTheNewestCompleteOne) {
  TempDir dir;
  EXPECT_EQ(latest_checkpoint(dir / "none"), std::nullopt);
  EXPECT_EQ(latest_checkpoint(dir.path()), std::nullopt);
  ASSERT_EQ(save(dir.path(), 9, 1), "");
  ASSERT_EQ(save(dir.path(), 100000000, 1), "");
  fs::create_directory(dir / "step_200000000");  // no manifest
  fs::copy(dir / "step_00000009", dir / "step_300000000.tmp");
  fs::copy(dir / "step_00000009", dir / "step_4x");
  EXPECT_EQ(latest_checkpoint(dir.path()), dir / "step_100000000");
  EXPECT_EQ(list_checkpoints(dir.path()).size(), 2u);
  EXPECT_EQ(read_training_state(dir / "step_00000009").scalars, state_at(9).scalars);
}

TEST(Checkpoint, KeepsTheNewestAndNoneOfALeftCourse) {
  TempDir dir;
  for (int step : {10, 20, 30}) ASSERT_EQ(save(dir.path(), step, 2, 2), "");
  EXPECT_EQ(names_in(dir.path()), (Strings{"step_00000020", "step_00000030"}));
  // Set back to 20 and saved at 25: what came after 20 before is no part of this run any more.
  ASSERT_EQ(save(dir.path(), 25, 1, 2), "");
  EXPECT_EQ(names_in(dir.path()), (Strings{"step_00000020", "step_00000025"}));
  // Saved again: replaced, here by one of more files.
  ASSERT_EQ(save(dir.path(), 25, 3, 2), "");
  EXPECT_EQ(names_in(dir.path()), (Strings{"step_00000020", "step_00000025"}));
  EXPECT_EQ(names_in(dir / "step_00000025").size(), 5u);
  EXPECT_EQ(load(dir / "step_00000025", 25, 2), "");
}

TEST(Checkpoint, AlteredCutOrMissingFilesAreRefusedByName) {
  TempDir dir;
  ASSERT_EQ(save(dir.path(), 10, 2), "");
  const fs::path checkpoint = dir / "step_00000010";
  for (const std::string& name : names_in(checkpoint)) {
    const std::string good = read_text(checkpoint / name);
    for (size_t at : {size_t{0}, good.size() / 3, good.size() / 2, good.size() - 2}) {
      std::string bad = good;
      bad[at] ^= 1;
      write_text(checkpoint / name, bad);
      EXPECT_CONTAINS(load(checkpoint, 10, 2), name + "] altered: expected") << at;
    }
    write_text(checkpoint / name, good.substr(0, good.size() - 5));
    EXPECT_CONTAINS(load(checkpoint, 10, 3),
                    name + (name == "manifest.json" ? "] altered" : "] wrong size: expected "));
    fs::remove(checkpoint / name);
    EXPECT_CONTAINS(load(checkpoint, 10, 1), name + "] missing: expected");
    write_text(checkpoint / name, good);
  }
  EXPECT_EQ(load(checkpoint, 10, 2), "");
}

// Loads as two ranks after `change` to their lists.
std::string load_changed(const fs::path& checkpoint,
                         const std::function<void(std::vector<ShardedTensor>&)>& change) {
  return common_error(ThreadRanks::run(2, [&](Communicator& comm) {
    auto tensors = model(comm.rank(), 2);
    change(tensors);
    load_checkpoint(comm, checkpoint, tensors);
  }));
}

TEST(Checkpoint, OtherModelsAreRefusedByTensor) {
  TempDir dir;
  ASSERT_EQ(save(dir.path(), 10, 2), "");
  const fs::path checkpoint = dir / "step_00000010";
  const std::string place = "config: [" + checkpoint.string() + ": ";
  const std::string hint = ". hint: the checkpoint is of another model or configuration";
  EXPECT_EQ(load_changed(checkpoint, [](auto& t) { t[0].name = "language.embedding.weight/value"; }),
            place +
                "language.embedding.weight/value] tensor missing: expected shape [7, 4] bf16, found no such "
                "tensor" +
                hint);
  EXPECT_EQ(
      load_changed(checkpoint, [](auto& t) { t.erase(t.begin()); }),
      place + "language.embed.weight/value] tensor not in the model: expected none, found shape [7, 4] bf16" +
          hint);
  EXPECT_EQ(
      load_changed(checkpoint,
                   [](auto& t) {
                     t[0].shape = {4, 7};
                     t[0].shard = whole(t[0].shape);
                     t[0].tensor = Tensor::zeros({28}, DType::bf16);
                   }),
      place +
          "language.embed.weight/value] tensor differs: expected shape [4, 7] bf16, found shape [7, 4] bf16" +
          hint);
  EXPECT_EQ(
      load_changed(checkpoint,
                   [](auto& t) { t[0].tensor = Tensor::zeros({t[0].tensor.numel()}, DType::f32); }),
      place +
          "language.embed.weight/value] tensor differs: expected shape [7, 4] f32, found shape [7, 4] bf16" +
          hint);
}

// What may be left in the checkpoint is left there; all else is asked for and found, or refused.
TEST(Checkpoint, SomeOfItsTensorsAreLoaded) {
  TempDir dir;
  ASSERT_EQ(save(dir.path(), 10, 2), "");
  const auto load_some = [&](const std::string& prefix, const std::string& renamed = "") {
    return common_error(ThreadRanks::run(3, [&](Communicator& comm) {
      auto tensors = model(comm.rank(), 3);
      std::erase_if(tensors, [&](const ShardedTensor& t) { return !t.name.starts_with(prefix); });
      if (!renamed.empty()) tensors[0].name = renamed;
      std::set<std::string> lacking;
      load_checkpoint(
          comm, dir / "step_00000010", tensors,
          [](const std::string& name) { return !name.starts_with("language.layers."); }, &lacking);
      EXPECT_TRUE(lacking.empty());
      for (const ShardedTensor& t : tensors) EXPECT_EQ(difference(t, 10), "");
    }));
  };
  EXPECT_EQ(load_some("language.layers."), "");
  EXPECT_CONTAINS(load_some("language.layers.1"),
                  "language.layers.0.mixer.in_proj.weight/value] tensor not in the model");
  EXPECT_CONTAINS(
      load_some("language.layers.", "language.layers.9.weight/value"),
      "language.layers.9.weight/value] tensor missing: expected shape [28, 6] bf16, found no such");
}

// Saves one tensor of 4 x 2 from two ranks with these shards.
std::string save_shards(const fs::path& dir, const Shard& first, const Shard& second) {
  return common_error(ThreadRanks::run(2, [&](Communicator& comm) {
    const Shard& shard = comm.rank() == 0 ? first : second;
    const std::vector<ShardedTensor> t = {
        {"x/value", {4, 2}, shard, Tensor::zeros({numel(shard)}, DType::f32), true}};
    save_checkpoint(comm, dir, {10, {}}, t);
  }));
}

TEST(Checkpoint, EveryElementMustBeStoredOnce) {
  TempDir dir;
  EXPECT_CONTAINS(save_shards(dir.path(), {{{0, 0}, {2, 2}}}, {{{3, 0}, {1, 2}}}),
                  "the ranks' shards of x/value are not the whole: 6 elements of [4, 2]");
  EXPECT_EQ(names_in(dir.path()), Strings{});
  // As many elements as there are, but not the same: only reading finds it.
  const auto load_whole = [&] {
    const auto comm = self_communicator();
    return thrown<ConfigError>([&] {
      load_checkpoint(
          *comm, dir / "step_00000010",
          std::vector{ShardedTensor{"x/value", {4, 2}, whole({4, 2}), Tensor::zeros({8}, DType::f32)}});
    });
  };
  ASSERT_EQ(save_shards(dir.path(), {{{0, 0}, {2, 2}}}, {{{1, 0}, {2, 2}}}), "");
  EXPECT_CONTAINS(load_whole(), "x/value] expected every element stored once, found several at [1, 0]");
  ASSERT_EQ(save_shards(dir.path(), {{{1, 0}, {1, 2}}}, {{{1, 0}, {3, 2}}}), "");
  EXPECT_CONTAINS(load_whole(), "x/value] expected every element stored once, found none at [0, 0]");
  ASSERT_EQ(save_shards(dir.path(), {{{0, 0}, {2, 2}}}, {{{0, 0}, {2, 2}}}), "");
  EXPECT_CONTAINS(load_whole(), "found several at [0, 0]");
  ASSERT_EQ(save_shards(dir.path(), {{{0, 0}, {4, 1}}}, {{{0, 1}, {4, 1}}}), "");
  EXPECT_EQ(load_whole(), "nothing was thrown");
}

TEST(Checkpoint, AFailureOnOneRankIsEveryRanksAndLosesNothing) {
  TempDir dir;
  ASSERT_EQ(save(dir.path(), 10, 3), "");
  const std::string error = common_error(ThreadRanks::run(3, [&](Communicator& comm) {
    auto tensors = model(comm.rank(), 3);
    if (comm.rank() == 1) tensors[0].tensor = Tensor::zeros({1}, DType::bf16);
    save_checkpoint(comm, dir.path(), state_at(20), tensors, 1);
  }));
  EXPECT_CONTAINS(error, "language.embed.weight/value and its shard");
  EXPECT_EQ(names_in(dir.path()), Strings{"step_00000010"});
  EXPECT_EQ(load(dir / "step_00000010", 10, 2), "");

  write_text(dir / "file", "");
  EXPECT_NE(save(dir / "file", 10, 2), "");  // no directory can be made there
}

// Sets the last element that this rank holds of a tensor.
void spoil(const ShardedTensor& t, double value) {
  dispatch(t.tensor.dtype(), [&]<class T>() {
    static_cast<T*>(t.tensor.raw())[t.tensor.numel() - 1] = static_cast<T>(static_cast<float>(value));
  });
}

TEST(Checkpoint, WhatIsNotFiniteIsNotSavedAndLosesNothing) {
  TempDir dir;
  ASSERT_EQ(save(dir.path(), 10, 3, 1), "");
  for (const Spec& s : specs())
    for (const double bad : {double{NAN}, HUGE_VAL, -HUGE_VAL}) {
      if (numel(s.shape) == 0) continue;
      const std::string error = common_error(ThreadRanks::run(3, [&](Communicator& comm) {
        const auto tensors = model(comm.rank(), 3);
        for (const ShardedTensor& t : tensors) {
          fill(t, 20);
          if (t.name == s.name && t.tensor.numel() > 0) spoil(t, bad);
        }
        EXPECT_EQ(non_finite(comm, tensors), s.name);
        EXPECT_THROW(save_checkpoint(comm, dir.path(), state_at(20), tensors, 1), NotFinite);
        save_checkpoint(comm, dir.path(), state_at(20), tensors, 1);
      }));
      EXPECT_EQ(error, std::string("no checkpoint of step 20 is written: not finite are ") + s.name);
      EXPECT_EQ(names_in(dir.path()), Strings{"step_00000010"}) << "the good one stays, and nothing else";
    }
  EXPECT_EQ(load(dir / "step_00000010", 10, 2), "");
  ThreadRanks::run(2, [&](Communicator& comm) {
    const auto tensors = model(comm.rank(), 2);
    EXPECT_EQ(non_finite(comm, tensors), "");
    for (const ShardedTensor& t : tensors)
      if (t.name.starts_with("language.layers.1.") && t.tensor.numel() > 0) spoil(t, NAN);
    EXPECT_EQ(non_finite(comm, tensors), "language.layers.1.experts.weight/value and 1 more");
  });
}

// One that an earlier program wrote.
TEST(Checkpoint, WhatIsNotFiniteIsNotLoaded) {
  TempDir dir;
  const ShardedTensor t{"x/value", {3}, whole({3}), Tensor::of(std::vector<float>{1, 12345.678f, 3}), true};
  const auto self = self_communicator();
  save_checkpoint(*self, dir.path(), {10, {}}, std::span(&t, 1));
  const fs::path checkpoint = dir / "step_00000010", shard = checkpoint / "rank_00000.h5";
  const auto bytes = [](float v) { return std::string(reinterpret_cast<const char*>(&v), sizeof v); };
  std::string text = read_text(shard);
  text.replace(text.find(bytes(12345.678f)), 4, bytes(NAN));
  write_text(shard, text);
  auto manifest = nlohmann::ordered_json::parse(read_text(checkpoint / "manifest.json"));
  manifest["files"]["rank_00000.h5"]["xxh3"] = hash_file(shard);
  manifest.erase("xxh3");
  manifest["xxh3"] = hash_text(manifest.dump());
  write_text(checkpoint / "manifest.json", manifest.dump());
  const std::string error =
      thrown<ConfigError>([&] { load_checkpoint(*self, checkpoint, std::span(&t, 1)); });
  EXPECT_CONTAINS(
      error, "step_00000010] of a run that had diverged: expected finite numbers, found others in x/value");
  EXPECT_CONTAINS(error, "--resume=STEP takes an older checkpoint");
}

// Runs f in a process of its own; returns its exit status, or -1 if it was killed.
int in_child(const std::function<int()>& f) {
  const pid_t child = ::fork();
  if (child == 0) std::_Exit(f());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Checkpoint, AFullDiskLosesNothing) {
  TempDir dir;
  ASSERT_EQ(save(dir.path(), 10, 2), "");
  for (rlim_t bytes : {100, 1000, 3000, 6000}) {
    const int status = in_child([&] {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{bytes, bytes};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      return contains(save(dir.path(), 20, 2, 1), "File too large") ? 0 : 1;
    });
    EXPECT_EQ(status, 0) << bytes;
    EXPECT_EQ(names_in(dir.path()), Strings{"step_00000010"});
    EXPECT_EQ(load(dir / "step_00000010", 10, 1), "");
  }
}

TEST(Checkpoint, KilledAnywhereLeavesACompleteOne) {
  TempDir before;
  ASSERT_EQ(save(before.path(), 10, 2), "");
  for (int rank : {0, 1}) {
    int killed = 0, finished = 0;
    for (int at = 0; finished == 0; ++at) {
      TempDir dir;
      fs::copy(before.path(), dir.path(), fs::copy_options::recursive);
      const int status = in_child([&] {
        const auto kill = [&](int r, int done) {
          if (r == rank && done == at) std::_Exit(9);
        };
        ThreadRanks::run(
            2,
            [&](Communicator& comm) {
              const auto tensors = model(comm.rank(), 2);
              for (const ShardedTensor& t : tensors) fill(t, 20);
              save_checkpoint(comm, dir.path(), state_at(20), tensors, 1);
            },
            kill);
        return 0;
      });
      (status == 9 ? killed : finished)++;
      const auto latest = latest_checkpoint(dir.path());
      ASSERT_TRUE(latest.has_value());
      const int64_t step = read_training_state(*latest).step;
      EXPECT_EQ(load(*latest, step, 3), "");
      EXPECT_TRUE(status == 9 || step == 20);
      // The next save finds its way past what was left behind.
      ASSERT_EQ(save(dir.path(), 20, 2, 1), "");
      EXPECT_EQ(names_in(dir.path()), Strings{"step_00000020"});
      EXPECT_EQ(load(dir / "step_00000020", 20, 1), "");
    }
    EXPECT_GE(killed, 4);
  }
}

}  // namespace
}  // namespace mimo
