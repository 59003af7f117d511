// What the late runtime shares with its NCCL.
#pragma once
#include <functional>

namespace mimo::cuda {

void queue(void* stream, std::function<void()> work);
char* reach(const void* p);  // where the host may touch it, if it is device memory

}  // namespace mimo::cuda
