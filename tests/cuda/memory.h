// Memory that tests fill, kernels compute on and tests read: exact-size heap blocks under the emulator, so
// that ASan sees every access outside; managed memory on a GPU.
#pragma once
#include <cstdint>
#include <memory>

#include "kernels/kernel.h"

namespace mimo::op_test {

std::shared_ptr<void> device_memory(int64_t bytes);
Cuda cuda_context();
void synchronize();  // until everything launched has run; throws what it met

// Thread orders that results may not depend on: the emulator has four, a GPU its own, twice.
int orders();
void set_order(int);

}  // namespace mimo::op_test
