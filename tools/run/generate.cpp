// ./mimo generate: what a trained run says to a text and an image.
#include <fmt/format.h>

#include "data/fit.h"
#include "data/tokenizer.h"
#include "parallel/agreement.h"
#include "tools/run/trained.h"

namespace mimo {
namespace {

// An image from outside, as the items of that modality are.
Sample::Item read_image(const std::string& file, const Job& job, int modality, int position) {
  const Preprocessing& p = job.preprocessing[static_cast<size_t>(modality)];
  std::string done;
  Image image = fit(read_png(file, p.channels), image_range(job.data->train, modality), p.side(), done);
  if (!done.empty()) fmt::print(stderr, "{}: {}, to be like what the model was trained on\n", file, done);
  Sample s;
  s.add(position, modality, std::move(image));
  return s.items[0];
}

// The command line's text and image. `room`: tokens of text that fit beside the image.
Sample prompt_of(const CommandLine& line, const Job& job, int64_t& room) {
  const int64_t seq_length = job.config.get<int64_t>("data.seq_length");
  const PromptTemplate& prompts = job.data->header.prompt;
  const std::vector<Preprocessing>& modalities = job.preprocessing;
  const Tokenizer& tokenizer = *job.data->tokenizer;
  const std::string asked = line.prompt.value_or(prompts.prompt);
  std::vector<std::string> media;
  if (!line.image.empty()) media.push_back("image");
  Sample s;
  s.tokens = tokenizer.encode(apply(prompts, asked, media));
  int64_t tokens = static_cast<int64_t>(s.tokens.size());
  for (size_t t = 0; t < s.tokens.size(); ++t) {
    if (s.tokens[t] >= job.data->header.vocab)
      throw ConfigError(
          "--prompt", fmt::format("expected tokens below {}, found {}", job.data->header.vocab, s.tokens[t]));
    if (s.tokens[t] == tokenizer.special(placeholder("image")) && modalities.empty())
      throw ConfigError("--prompt", "the model reads no images: expected text alone, found <image>");
    for (size_t m = 0; m < modalities.size(); ++m) {
      const std::string& name = modalities[m].modality;
      if (s.tokens[t] != tokenizer.special(placeholder(name))) continue;
      if (modalities[m].decoder != "pixels" || name != "image")
        throw ConfigError("--prompt", "expected text and an <image>, found " + placeholder(name));
      if (line.image.empty())
        throw ConfigError("--image", "the prompt has an <image>: expected a PNG file, found none");
      if (!s.items.empty()) throw ConfigError("--prompt", "expected one <image>, found more");
      s.items.push_back(read_image(line.image, job, static_cast<int>(m), static_cast<int>(t)));
      tokens += item_size(modalities[m], s.items[0].shape, line.image).rows - 1;
    }
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
  const Tokenizer& tokenizer = *job.data->tokenizer;
  if (!out.empty() && out.back() == tokenizer.special(job.data->header.prompt.stop)) out.pop_back();
  fmt::print("{}\n", printable(tokenizer.decode(out)));
  return 0;
}

}  // namespace mimo
