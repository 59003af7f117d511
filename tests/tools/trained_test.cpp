// What eval and generate make of a trained run: its weights, and nothing that only training needs.
#include "tools/run/trained.h"

#include <gtest/gtest.h>

#include "tensor/allocator.h"
#include "tests/tools/program.h"

namespace mimo {
namespace {

TEST(Trained, HoldsWeightsAlone) {
  TempDir files;
  write_tiny_dataset(files / "data.h5");
  write_tiny_config(files / "tiny.toml", files / "data.h5");
  const auto world = self_world();
  CommandLine line;
  line.overrides = {"--run.dir=" + (files / "run").string()};
  for (const std::string dtype : {"f32", "bf16"}) {
    std::vector<std::string> training = line.overrides;
    training.push_back("--train.dtype=" + dtype);
    const auto in_use = [] {
      std::map<std::string, int64_t> bytes;
      for (const auto& [label, memory] : memory_statistics()) bytes[label] = memory.current;
      return bytes;
    };
    Evaluation trained;
    std::map<std::string, int64_t> values;  // bytes, by name
    {
      Trainer trainer(make_job(files / "tiny.toml", training, 1), *world);
      EXPECT_GT(in_use()["optimizer"], 0);
      trainer.step();
      trainer.save();
      trained = trainer.evaluate(0, trainer.job().data->heldout.samples());
      for (const Parameter* p : trainer.parameters()) values[p->name] = p->value.storage()->bytes;
    }
    const std::map<std::string, int64_t> before = in_use();
    reset_memory_peaks();
    std::filesystem::path checkpoint;
    Trainer reader(trained_job(line, 1, checkpoint), *world);
    int64_t held = 0, expected = 0;
    for (const auto& [label, bytes] : in_use()) {
      const auto was = before.find(label);
      held += bytes - (was == before.end() ? 0 : was->second);
    }
    for (const Parameter* p : reader.parameters()) {
      EXPECT_FALSE(p->grad.defined()) << p->name;
      EXPECT_EQ(p->value.storage()->bytes, values.at(p->name)) << p->name;
      expected += p->value.storage()->bytes;
    }
    EXPECT_EQ(held, expected) << "values and nothing else";
    EXPECT_EQ(reader.load(checkpoint), 1);
    const Evaluation read = reader.evaluate(0, trained.samples());
    EXPECT_EQ(memory_statistics()["optimizer"].peak, 0);
    EXPECT_EQ(read.loss_sum, trained.loss_sum) << dtype;
    EXPECT_EQ(read.readings, trained.readings);
    EXPECT_THROW(reader.step(), std::logic_error);
  }
}

}  // namespace
}  // namespace mimo
