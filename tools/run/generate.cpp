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
  if (p.channels != 1 && p.channels != 3)
    throw ConfigError("--image",
                      fmt::format("the model reads images of {} channels: expected 1 or 3", p.channels));
  std::string done;
  Image image = fit(read_png(file, p.channels), image_range(job.data->train, modality), p.side(), done);
  if (!done.empty()) fmt::print(stderr, "{}: {}, to be like what the model was trained on\n", file, done);
  Sample s;
  s.add(position, modality, std::move(image));
  return s.items[0];
}

// The command line's text and image.
Sample prompt_of(const CommandLine& line, const Job& job) {
  const int64_t seq_length = job.config.get<int64_t>("data.seq_length");
  const PromptTemplate& prompts = job.data->header.prompt;
  const Tokenizer& tokenizer = *job.data->tokenizer;
  int images = -1;  // the modality that an image is of: the first one of pixels
  for (size_t m = 0; m < job.preprocessing.size() && images < 0; ++m)
    if (job.preprocessing[m].decoder == "pixels") images = static_cast<int>(m);
  const std::string place =
      placeholder(images < 0 ? "image" : job.preprocessing[static_cast<size_t>(images)].modality);
  std::vector<std::string> media;
  if (!line.image.empty() && images >= 0)
    media.push_back(job.preprocessing[static_cast<size_t>(images)].modality);
  Sample s;
  s.tokens = tokenizer.encode(apply(prompts, line.prompt.value_or(prompts.prompt), media));
  for (size_t t = 0; t < s.tokens.size(); ++t) {
    if (s.tokens[t] >= job.data->header.vocab)
      throw ConfigError(
          "--prompt", fmt::format("expected tokens below {}, found {}", job.data->header.vocab, s.tokens[t]));
    for (const Preprocessing& p : job.preprocessing)
      if (s.tokens[t] == tokenizer.special(placeholder(p.modality)) && placeholder(p.modality) != place)
        throw ConfigError("--prompt", "expected text and an image, found " + placeholder(p.modality));
    if (s.tokens[t] != tokenizer.special(place)) continue;
    if (images < 0)
      throw ConfigError("--prompt", "the model reads no images: expected text alone, found " + place);
    if (line.image.empty())
      throw ConfigError("--image", "the prompt has an " + place + ": expected a PNG file, found none");
    if (!s.items.empty()) throw ConfigError("--prompt", "expected one " + place + ", found more");
    s.items.push_back(read_image(line.image, job, images, static_cast<int>(t)));
    item_size(job.preprocessing[static_cast<size_t>(images)], s.items[0].shape, line.image);
  }
  if (s.tokens.empty())
    throw ConfigError("--prompt", "nothing to go on from: expected at least one token, found none");
  if (!line.image.empty() && s.items.empty())
    throw ConfigError("--image", "the prompt has no place for it: expected " + place +
                                     " in the prompt, or {media} in the dataset's template");
  if (const int64_t rows = rows_of(s, job); rows >= seq_length)
    throw ConfigError(
        "--prompt",
        fmt::format("too long: expected fewer than data.seq_length {} tokens, found {}", seq_length, rows));
  return s;
}

}  // namespace

int generate(const CommandLine& line, World& world) {
  Job job;
  std::filesystem::path checkpoint;
  Sample prompt;
  if (!agree(world.world(), [&] {
        if (world.world().size() > 1)
          throw ConfigError("generate",
                            fmt::format("runs on one rank: expected 1, found {}", world.world().size()));
        job = trained_job(line, 1, checkpoint);
        prompt = prompt_of(line, job);
      }))
    return 2;
  Trainer trainer(job, world);
  if (!agree(world.world(), [&] { trainer.load(checkpoint); })) return 2;
  std::vector<int32_t> out = read_on(trainer, prompt);
  const Tokenizer& tokenizer = *job.data->tokenizer;
  if (!out.empty() && out.back() == tokenizer.special(job.data->header.prompt.stop)) out.pop_back();
  fmt::print("{}\n", printable(tokenizer.decode(out)));
  return 0;
}

}  // namespace mimo
