// Packed images of any size.
#pragma once
#include <cstdint>
#include <vector>

namespace mimo::op_test {

struct Images {
  std::vector<int32_t> sizes;  // height, width of each

  int count() const { return static_cast<int>(sizes.size() / 2); }
  std::vector<int32_t> cu() const {
    std::vector<int32_t> c{0};
    for (int i = 0; i < count(); ++i) c.push_back(c.back() + sizes[2 * i] * sizes[2 * i + 1]);
    return c;
  }
  int64_t rows() const { return cu().back(); }
};

}  // namespace mimo::op_test
