// ./mimo eval: the held-out figures of a trained run.
#include <fmt/format.h>

#include "parallel/agreement.h"
#include "tools/run/resume.h"
#include "tools/run/trained.h"

namespace mimo {

int evaluate(const CommandLine& line, World& world) {
  Communicator& comm = world.world();
  Job job;
  std::filesystem::path checkpoint;
  if (!agree(comm, [&] {
        job = trained_job(line, comm.size(), checkpoint);
        if (line.greedy > 0 && comm.size() > 1)
          throw ConfigError(
              "--greedy",
              fmt::format("reading token by token runs on one rank: expected 1, found {}", comm.size()));
      }))
    return 2;
  if (!agree_on_job(comm, job, checkpoint)) return 2;
  Trainer trainer(job, world);
  if (!agree(comm, [&] { trainer.load(checkpoint); })) return 2;
  const Evaluation e = trainer.evaluate(0, job.data->heldout.samples());
  if (comm.rank() != 0) return 0;
  fmt::print("{} after step {}\n{}\n", job.run_dir.string(), trainer.steps_done(), e.text());
  for (const auto& g : e.by_kind()) fmt::print("  {:12} {:.4f} of {:5}\n", g.name, g.figure, g.samples);
  for (const auto& g : e.by_length())
    fmt::print("  length {:5} {:.4f} of {:5}\n", g.name, g.figure, g.samples);
  if (line.greedy > 0) {
    const int64_t n = std::min(line.greedy, e.samples());
    int64_t same = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t id = i * e.samples() / n;  // of all kinds and lengths
      Sample s = job.data->heldout.read(id), prompt = s;
      std::vector<int32_t> answer;
      prompt.tokens.clear();
      for (size_t t = 0; t < s.tokens.size(); ++t)
        (s.counted[t] ? answer : prompt.tokens).push_back(s.tokens[t]);
      same += (read_on(trainer, prompt) == answer) == e.right[static_cast<size_t>(id)];
    }
    fmt::print("token by token: {} of {} samples judged as above\n", same, n);
    if (same != n) return 1;
  }
  return 0;
}

}  // namespace mimo
