// ./mimo generate: what a trained run says to a text and an image.
#include <fmt/format.h>

#include "data/fit.h"
#include "data/tokenizer.h"
#include "parallel/agreement.h"
#include "tools/run/trained.h"

namespace mimo {
namespace {

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

int generate(const CommandLine& line, World& world) {
  Job job;
  std::filesystem::path checkpoint;
  Sample prompt;
  int64_t room = 0;  // tokens of text that fit beside the images
  if (!agree(world.world(), [&] {
        if (world.world().size() > 1)
          throw ConfigError("generate",
                            fmt::format("runs on one rank: expected 1, found {}", world.world().size()));
        job = trained_job(line, 1, checkpoint);
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
