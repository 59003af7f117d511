// What a program is asked to do, checked: configuration, data, model and layout together. No rank talks to
// another here.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/pack.h"
#include "data/task.h"
#include "io/config.h"
#include "nn/mimo.h"
#include "parallel/plan.h"
#include "parallel/world.h"

namespace mimo {

struct Job {
  Config config;
  std::shared_ptr<DataFile> data;
  ModelSpec model;
  std::vector<Preprocessing> preprocessing;  // by modality: what the model makes of items
  const EvaluationTask* task = nullptr;
  Layout layout;  // modules in the model's order
  Device device;  // of this rank; which of several GPUs is chosen by open_device
  int waves = 1;
  bool trains = true;  // false: all is frozen, so that there are weights alone
  std::filesystem::path run_dir;

  Packing packing() const;  // what the model makes of samples
  int64_t global_batch() const { return config.get<int64_t>("train.global_batch"); }
};

Schema run_schema();

// What `device` asks for, if this machine has it; throws ConfigError.
Device device_of(const Config&);
// Makes the device of a job this thread's: its stream becomes the current one. A world whose groups talk
// between GPUs, or null where ranks compute on the CPU. Collective; throws ConfigError where ranks do not
// agree on the kind of device.
std::unique_ptr<World> open_device(Device&, World&);

// Reads the configuration (file, then overrides) and checks everything that needs no other rank and no
// device (a plan is drawn on any machine): `device` is left for who runs the job. Throws ConfigError.
Job make_job(const std::filesystem::path& file, const std::vector<std::string>& overrides, int world);
// The same of a configuration that is read, under its name (that of its file, which names the run's directory
// where nothing else does).
Job make_job(Config, const std::string& configuration, int world);
std::filesystem::path run_directory(const Config&, const std::string& configuration);

// Collective: refuses ranks that differ in configuration, dataset, checkpoint or build, in one message.
bool agree_on_job(Communicator&, const Job&, const std::filesystem::path& checkpoint);

// Sizes of samples of a split.
std::vector<SampleSizes> sizes_of(const Split&, const std::vector<int64_t>& samples);

}  // namespace mimo
