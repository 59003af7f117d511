// A whole training step of one model on one device: a vision transformer and a hybrid language model on a
// packed batch that is made up.
#pragma once
#include <cstdint>
#include <string>

namespace mimo::bench {

// Dense bf16 FLOP a second that NVIDIA states for a GPU of this name; 0 where none is known.
double stated_flop_per_second(const std::string& gpu);

// Trains on the device of the current stream, at the sizes of large models or small ones (bench.h), and
// prints where the time goes. Returns the exit status: 1 where the loss is not finite or does not fall.
int step();

}  // namespace mimo::bench
