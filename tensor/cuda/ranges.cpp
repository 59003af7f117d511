// NVTX is headers alone: without a profiler these do nothing.
#include <nvtx3/nvToolsExt.h>

#include "tensor/cuda.h"

namespace mimo::cuda {

void begin_range(const std::string& name) { nvtxRangePushA(name.c_str()); }
void end_range() { nvtxRangePop(); }

}  // namespace mimo::cuda
