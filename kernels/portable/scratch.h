// Carves the Workspace of a CPU kernel into arrays that start on cache lines; with null data it only counts,
// so that workspace() and run() share one description of what they need.
#pragma once
#include <stdexcept>
#include <string>

#include "kernels/kernel.h"

namespace mimo {

inline constexpr int64_t cache_line = 64;

class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(Workspace ws)
      : base_((reinterpret_cast<uintptr_t>(ws.data) + cache_line - 1) / cache_line * cache_line),
        capacity_(ws.bytes - static_cast<int64_t>(base_ - reinterpret_cast<uintptr_t>(ws.data))),
        counting_(false) {}

  template <class A>
  A* take(int64_t n) {
    const int64_t at = used_;
    used_ += (n * static_cast<int64_t>(sizeof(A)) + cache_line - 1) / cache_line * cache_line;
    if (counting_) return nullptr;
    if (used_ > capacity_)
      throw std::invalid_argument("workspace too small: need at least " + std::to_string(used_) +
                                  " bytes, found " + std::to_string(capacity_) +
                                  ". hint: size it by workspace(context, op)");
    return reinterpret_cast<A*>(base_ + static_cast<uintptr_t>(at));
  }

  // Bytes to ask for; the spare line pays for aligning whatever is handed over.
  int64_t bytes() const { return used_ == 0 ? 0 : used_ + cache_line; }

 private:
  uintptr_t base_ = 0;
  int64_t capacity_ = 0, used_ = 0;
  bool counting_ = true;
};

}  // namespace mimo
