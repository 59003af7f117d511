// How many edits make one sequence of another.
#pragma once
#include <algorithm>
#include <vector>

namespace mimo {

// Insertions, deletions and replacements of elements (Levenshtein); with `swaps`, neighbours that change places are
// one edit as well (optimal string alignment).
template <class Sequence>
size_t edit_distance(const Sequence& a, const Sequence& b, bool swaps = false) {
  // Rows of the table of distances between beginnings: of i - 2, i - 1 and i elements of a.
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), here(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) here[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    before.swap(above);
    above.swap(here);
    here[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      here[j] = std::min({above[j] + 1, here[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (swaps && i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        here[j] = std::min(here[j], before[j - 2] + 1);
    }
  }
  return here[b.size()];
}

}  // namespace mimo
