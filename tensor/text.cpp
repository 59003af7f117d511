#include "tensor/text.h"

#include <algorithm>

#include "tensor/edit_distance.h"

namespace mimo {

std::string joined(std::span<const std::string> words, std::string_view between) {
  std::string s;
  for (size_t i = 0; i < words.size(); ++i) s.append(i ? between : "").append(words[i]);
  return s;
}

std::string counted(int64_t n, std::string_view what) {
  return std::to_string(n).append(" ").append(what).append(n == 1 ? "" : "s");
}

std::string ranges(std::span<const int> ascending) {
  std::string s;
  for (size_t i = 0; i < ascending.size();) {
    size_t j = i;
    while (j + 1 < ascending.size() && ascending[j + 1] == ascending[j] + 1) ++j;
    s += (s.empty() ? "" : ",") + std::to_string(ascending[i]);
    if (j > i) s += "-" + std::to_string(ascending[j]);
    i = j + 1;
  }
  return s;
}

std::string nearest(std::string_view word, std::span<const std::string> candidates) {
  std::string best;
  const size_t letters = word.size() - (word.rfind('.') + 1);              // of a key: without its section
  size_t least = std::min(letters, std::max<size_t>(2, letters / 3) + 1);  // not all letters are other ones
  for (const std::string& c : candidates) {
    const auto [shorter, longer] = std::minmax({word.size(), c.size()});
    if (longer - shorter >= least) continue;  // so many letters are missing; long words cost their square
    if (const size_t d = edit_distance(word, std::string_view(c), true); d < least) {
      least = d;
      best = c;
    }
  }
  return best;
}

std::string did_you_mean(const std::string& meant, const std::string& otherwise) {
  return meant.empty() ? otherwise : "did you mean " + meant + "?";
}

}  // namespace mimo
