#include "tools/run/job.h"

#include <algorithm>

#include "data/loader.h"
#include "io/file.h"
#include "io/find.h"
#include "parallel/agreement.h"
#include "tools/run/run_observer.h"

namespace mimo {
namespace {

constexpr int64_t kMostParts = 100'000;  // of a step's plan, which takes seconds then

Layout ordered_layout(const Job& job, int world) {
  const std::vector<std::string> names = job.model.names();
  const Layout parsed = parse_layout(job.config.layout(), names, world);
  Layout layout{{}, parsed.world};
  for (const std::string& name : names) layout.modules.emplace_back(name, parsed.grid(name));
  return layout;
}

}  // namespace

Schema run_schema() {
  Schema schema;
  declare_run_keys(schema);
  declare_model_keys(schema);
  for (const auto& [name, kind] : Registry<RunObserverKind>::all())
    if (kind.declare) kind.declare(schema);
  return schema;
}

Job make_job(const std::filesystem::path& file, const std::vector<std::string>& overrides, int world) {
  return make_job(read_config(run_schema(), find_file(file), overrides), file.stem().string(), world);
}

std::filesystem::path run_directory(const Config& c, const std::string& configuration) {
  if (const std::string& dir = c.get<std::string>("run.dir"); !dir.empty()) return dir;
  const std::string& name = c.get<std::string>("run.name");
  const std::string& folder = name.empty() ? configuration : name;
  if (folder == "." || folder == ".." || folder.find('/') != std::string::npos)
    throw ConfigError(c.place("run.name"), "no name of a folder: expected one without /, found " + folder,
                      "--run.dir takes any path");
  return std::filesystem::path("runs") / folder;
}

Packing Job::packing() const {
  return {preprocessing, model[model.predictor()].position_axes(), model.dtype};
}

Job make_job(Config config, const std::string& configuration, int world) {
  Job job;
  job.config = std::move(config);
  const Config& c = job.config;
  if (c.get<std::string>("data.path").empty())
    throw ConfigError(c.place("data.path"), "no dataset: expected the path of an HDF5 file, found nothing",
                      "make one with mimo-data");
  job.data = open_dataset(find_file(c.get<std::string>("data.path")));
  job.model = model_spec(c, {job.data->header.vocab, job.data->header.modalities});
  const auto& task = c.get<std::string>("eval.task");
  job.task = task.empty() ? &task_named(job.data->header.task, c.get<std::string>("data.path") + ": task")
                          : &task_named(task, c.place("eval.task"));
  job.preprocessing.resize(job.data->header.modalities.size());
  for (const auto& m : job.model.modules)
    if (const auto reader = m->items())
      job.preprocessing[static_cast<size_t>(reader->modality)] = reader->preprocessing;
  job.data->train.prepare(job.preprocessing, c.get<int64_t>("data.seq_length"));
  job.data->heldout.prepare(job.preprocessing, c.get<int64_t>("data.seq_length"));
  job.layout = ordered_layout(job, world);
  check_model(job.model, job.layout);

  const int64_t lanes = job.layout.modules[static_cast<size_t>(job.model.predictor())].second.dp,
                micro = c.get<int64_t>("train.micro_batch"), batch = job.global_batch();
  job.waves = static_cast<int>(std::clamp<int64_t>((batch + lanes * micro - 1) / (lanes * micro), 1, batch));
  int64_t parts = 0;  // of every wave: a stage of a lane of a module each
  for (const auto& [name, grid] : job.layout.modules) parts += int64_t{grid.stages()} * grid.dp;
  if (const int64_t most = std::max<int64_t>(1, kMostParts / parts); job.waves > most)
    throw ConfigError(c.place("train.micro_batch"),
                      "too many waves for a plan: expected at most " + std::to_string(most) +
                          " on this layout, found " + std::to_string(job.waves),
                      "raise train.micro_batch, or lower train.global_batch");
  // Offsets into a wave's rows are 32 bits wide; an encoder may have all its samples on one lane.
  const int64_t wave = (batch + job.waves - 1) / job.waves,
                rows = std::max(job.data->train.most_rows(), job.data->heldout.most_rows());
  if (wave * rows > INT32_MAX)
    throw ConfigError(c.place("train.micro_batch"),
                      "too many rows in a wave: expected at most " + std::to_string(INT32_MAX) + ", found " +
                          std::to_string(wave) + " samples of up to " + std::to_string(rows),
                      "lower train.micro_batch");

  job.run_dir = run_directory(c, configuration);
  return job;
}

// What the digest of a dataset leaves out.
static std::string text_of(const DataFile& data) {
  const PromptTemplate& p = data.header.prompt;
  return data.header.tokenizer + '\n' + p.text + '\n' + p.prompt + '\n' + p.stop + '\n';
}

bool agree_on_job(Communicator& world, const Job& job, const std::filesystem::path& checkpoint) {
  const std::string shared =
      "all ranks need the same files: a shared file system, or copies that are the same";
  return agree_on(world,
                  {{"configuration", job.config.to_toml(), "start all ranks with the same command line"},
                   {"dataset", job.config.get<std::string>("data.path") + ' ' + job.data->digest, shared},
                   {"tokenizer, prompt and task", text_of(*job.data) + job.task->name, shared},
                   {"checkpoint to go on from", checkpoint.string(), shared},
                   {"build of this program", hash_file("/proc/self/exe"), shared}});
}

std::vector<SampleSizes> sizes_of(const Split& split, const std::vector<int64_t>& samples) {
  std::vector<SampleSizes> sizes;
  for (int64_t s : samples) sizes.push_back(split.sizes(s));
  return sizes;
}

}  // namespace mimo
