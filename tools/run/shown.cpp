#include "tools/run/shown.h"

#include <algorithm>
#include <set>

#include "data/image.h"
#include "data/tokenizer.h"
#include "tools/run/step_times.h"

namespace mimo {
namespace {

std::vector<int64_t> shown(const Evaluation& e) {
  const int64_t n = e.samples();
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < n && ids.size() < 24; i += std::max<int64_t>(1, n / 24)) ids.push_back(i);
  const std::set<int64_t> there(ids.begin(), ids.end());
  for (int64_t i = 0; i < n && ids.size() < 36; ++i)
    if (!e.right[static_cast<size_t>(i)] && !there.contains(i)) ids.push_back(i);
  return ids;
}

}  // namespace

std::vector<ShownSample> shown_samples(Trainer& trainer, const Evaluation& e) {
  constexpr size_t kMost = 64;
  const std::vector<int64_t> ids = shown(e);
  std::vector<int32_t> flat(ids.size() * kMost, -1);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto& reading = e.readings[static_cast<size_t>(ids[i])];
    std::copy(reading.begin(), reading.begin() + static_cast<int64_t>(std::min(kMost, reading.size())),
              flat.begin() + static_cast<int64_t>(i * kMost));
  }
  combine(trainer, flat, ReduceOp::max);
  std::vector<ShownSample> out;
  for (size_t i = 0; i < ids.size(); ++i) {
    out.push_back({ids[i], {}});
    for (size_t k = 0; k < kMost && flat[i * kMost + k] >= 0; ++k)
      out[i].reading.push_back(flat[i * kMost + k]);
  }
  return out;
}

ReadImage read_image(const DataFile& data, const ShownSample& shown) {
  const Sample s = data.heldout.read(shown.id);
  ReadImage r;
  for (const Sample::Item& item : s.items)
    if (item.drawable()) r.png.push_back(encode_png(item.image()));
  std::vector<int32_t> prompt, answer;
  for (size_t t = 0; t < s.tokens.size(); ++t) (s.counted[t] ? answer : prompt).push_back(s.tokens[t]);
  // Without what opens every prompt and what ends every answer.
  const PromptTemplate& prompts = data.header.prompt;
  const std::vector<int32_t> opening = data.tokenizer->encode(prompts.opening());
  const auto stop = data.tokenizer->special(prompts.stop);
  if (prompt.size() >= opening.size() && std::equal(opening.begin(), opening.end(), prompt.begin()))
    prompt.erase(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(opening.size()));
  const auto plain = [&](std::vector<int32_t> tokens) {
    if (stop) tokens.erase(std::find(tokens.begin(), tokens.end(), *stop), tokens.end());
    return printable(data.tokenizer->decode(tokens));
  };
  r.prompt = plain(prompt);
  r.expected = plain(answer);
  r.reading = plain(shown.reading);
  return r;
}

}  // namespace mimo
