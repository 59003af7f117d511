// ./mimo eval and ./mimo generate: what a trained run can do.
#include <fmt/format.h>

#include "data/fit.h"
#include "data/tokenizer.h"
#include "io/find.h"
#include "parallel/agreement.h"
#include "tools/commands.h"
#include "tools/resume.h"
#include "tools/trainer.h"

namespace mimo {
namespace {

// A trained run as a job of any number of ranks: configured as its checkpoint was, or by --config where that
// is named. Its layout is of no concern; the command line may give another.
Job trained(const CommandLine& line, int ranks, std::filesystem::path& checkpoint) {
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
  return job;
}

// Reads until <end>, or as many tokens as fit.
std::vector<int32_t> read_on(Trainer& trainer, Sample sample, int64_t seq_length) {
  std::vector<int32_t> out;
  for (int64_t used = static_cast<int64_t>(sample.tokens.size()); used < seq_length; ++used) {
    const int32_t token = trainer.next_token(sample);
    out.push_back(token);
    if (token == Tokenizer::end) break;
    sample.tokens.push_back(token);
  }
  return out;
}

// The command line's text and image. `room`: tokens of text that fit beside the image.
Sample prompt_of(const CommandLine& line, const Job& job, int64_t& room) {
  const int64_t seq_length = job.config.get<int64_t>("data.seq_length");
  Sample s;
  std::string prompt = line.prompt;
  if (!line.image.empty() && prompt.find("<image>") == std::string::npos) prompt = "<image>" + prompt;
  if (!prompt.starts_with("<begin>")) prompt = "<begin>" + prompt;
  s.tokens = Tokenizer::encode(prompt);
  int64_t tokens = static_cast<int64_t>(s.tokens.size());
  for (size_t t = 0; t < s.tokens.size(); ++t) {
    if (s.tokens[t] != Tokenizer::image) continue;
    if (line.image.empty())
      throw ConfigError("--image", "the prompt has an <image>: expected a PNG file, found none");
    if (job.cuts.empty())
      throw ConfigError("--prompt", "the model reads no images: expected text alone, found <image>");
    if (!s.items.empty()) throw ConfigError("--prompt", "expected one <image>, found more");
    const ItemCut& cut = job.cuts.at(0);
    const int side = cut.patch * (cut.pixel_shuffle ? 2 : 1);
    std::string done;
    const Image image =
        fit(read_png(line.image, job.data->header.channels), image_range(job.data->train, 0), side, done);
    if (!done.empty())
      fmt::print(stderr, "{}: {}, to be like what the model was trained on\n", line.image, done);
    if (image.height % side != 0 || image.width % side != 0)
      throw ConfigError(line.image, fmt::format("patches do not divide the image: expected height and width "
                                                "to be multiples of {}, found {} x {}",
                                                side, image.height, image.width));
    tokens += int64_t{image.height / side} * (image.width / side) - 1;
    s.items.push_back({static_cast<int>(t), 0, image});
  }
  if (tokens >= seq_length)
    throw ConfigError(
        "--prompt",
        fmt::format("too long: expected fewer than data.seq_length {} tokens, found {}", seq_length, tokens));
  room = seq_length - tokens + static_cast<int64_t>(s.tokens.size());
  return s;
}

}  // namespace

int evaluate(const CommandLine& line, World& world) {
  Communicator& comm = world.world();
  Job job;
  std::filesystem::path checkpoint;
  if (!agree(comm, [&] {
        job = trained(line, comm.size(), checkpoint);
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
  for (const auto& [kind, f] : e.by_kind)
    fmt::print("  {:12} {:5} of {:5}  {:.4f}\n", kind, f.first, f.second, double(f.first) / double(f.second));
  for (const auto& [length, f] : e.by_length)
    fmt::print("  length {:5} {:5} of {:5}  {:.4f}\n", length, f.first, f.second,
               double(f.first) / double(f.second));
  if (line.greedy > 0) {
    const int64_t n = std::min(line.greedy, e.samples);
    int64_t same = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t id = i * e.samples / n;  // of all kinds and lengths
      Sample s = job.data->heldout.read(id), prompt = s;
      std::vector<int32_t> answer;
      prompt.tokens.clear();
      for (size_t t = 0; t < s.tokens.size(); ++t)
        (s.counted[t] ? answer : prompt.tokens).push_back(s.tokens[t]);
      same += (read_on(trainer, prompt, job.config.get<int64_t>("data.seq_length")) == answer) ==
              e.right[static_cast<size_t>(id)];
    }
    fmt::print("token by token: {} of {} samples judged as above\n", same, n);
    if (same != n) return 1;
  }
  return 0;
}

int generate(const CommandLine& line, World& world) {
  Job job;
  std::filesystem::path checkpoint;
  Sample prompt;
  int64_t room = 0;  // tokens of text that fit beside the images
  if (!agree(world.world(), [&] {
        if (world.world().size() > 1)
          throw ConfigError("generate",
                            fmt::format("runs on one rank: expected 1, found {}", world.world().size()));
        job = trained(line, 1, checkpoint);
        prompt = prompt_of(line, job, room);
      }))
    return 2;
  Trainer trainer(job, world);
  if (!agree(world.world(), [&] { trainer.load(checkpoint); })) return 2;
  std::vector<int32_t> out = read_on(trainer, prompt, room);
  if (!out.empty() && out.back() == Tokenizer::end) out.pop_back();
  fmt::print("{}\n", printable(Tokenizer::decode(out)));
  return 0;
}

}  // namespace mimo
