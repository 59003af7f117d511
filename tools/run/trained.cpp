#include "tools/run/trained.h"

#include "data/tokenizer.h"
#include "io/find.h"
#include "tools/run/resume.h"

namespace mimo {

Job trained_job(const CommandLine& line, int ranks, std::filesystem::path& checkpoint) {
  const std::filesystem::path file = line.config_file();
  std::vector<std::string> where, layout;  // which run and checkpoint; on which ranks
  for (const std::string& o : line.overrides) {
    if (o.starts_with("--run.") || o.starts_with("--resume=")) where.push_back(o);
    if (o.starts_with("--layout.")) layout.push_back(o);
  }
  Config config = line.config.empty() ? parse_config(run_schema(), "", "the configuration", where)
                                      : read_config(run_schema(), find_file(file), line.overrides);
  const std::filesystem::path run_dir = run_directory(config, file.stem().string());
  const auto found = checkpoint_of(config, run_dir);
  if (!found)
    throw ConfigError("run.dir",
                      "no checkpoint: expected one in " + (run_dir / "checkpoints").string() + ", found none",
                      "train first, or name the run with --run.dir");
  checkpoint = *found;
  if (line.config.empty()) config = config_of(checkpoint, line.overrides);
  config.set_layout(parse_config(run_schema(), "", "the configuration", layout).layout());
  Job job = make_job(std::move(config), file.stem().string(), ranks);
  job.run_dir = run_dir;
  job.device = device_of(job.config);
  refuse(changes_since(checkpoint, job), {kModel}, checkpoint, job.config);
  job.trains = false;
  job.model.freezing = {.freeze = {"*"}, .unfreeze = {}};
  settle_backward(job.model);
  return job;
}

int64_t rows_of(const Sample& prompt, const Job& job) {
  Sample asked = prompt;
  asked.tokens.push_back(0);  // what follows, which is no row
  asked.counted.assign(asked.tokens.size(), 0);
  return sizes_of(asked, job.preprocessing).tokens;
}

std::vector<int32_t> read_on(Trainer& trainer, Sample sample) {
  const DataFile& data = *trainer.job().data;
  const int64_t most = trainer.job().config.get<int64_t>("data.seq_length");
  const auto stop = data.tokenizer->special(data.header.prompt.stop);
  std::vector<int32_t> out;
  for (int64_t rows = rows_of(sample, trainer.job()); rows < most; ++rows) {
    const int32_t token = trainer.next_token(sample);
    out.push_back(token);
    if (token == stop) break;
    sample.tokens.push_back(token);
  }
  return out;
}

}  // namespace mimo
