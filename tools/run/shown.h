// Held-out samples that a run shows at its end, and what it read of them.
#pragma once
#include <vector>

#include "tools/run/report.h"
#include "tools/run/trainer.h"

namespace mimo {

struct ShownSample {
  int64_t id = 0;                // in the held-out split
  std::vector<int32_t> reading;  // predicted tokens at counted places
};

// Two dozen from all over the evaluation, and up to a dozen more that were read wrongly; on all ranks.
// Collective.
std::vector<ShownSample> shown_samples(Trainer&, const Evaluation&);

// In words and as PNG files.
ReadImage read_image(const DataFile&, const ShownSample&);

}  // namespace mimo
