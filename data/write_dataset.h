#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace mimo {

// Writes a dataset, beside the path until it is whole; samples come from a function of the index, so that
// their pixels need not fit in memory.
struct SplitSource {
  std::string name;
  int64_t samples, headline;
  std::function<Sample(int64_t)> make;
};
void write_dataset(const std::filesystem::path&, const DatasetHeader&, const std::vector<SplitSource>&);

}  // namespace mimo
