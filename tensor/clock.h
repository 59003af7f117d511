#pragma once
#include <chrono>

namespace mimo {

// Seconds of a clock that never goes back, from a start of its own.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace mimo
