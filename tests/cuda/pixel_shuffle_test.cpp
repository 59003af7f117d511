#include "kernels/pixel_shuffle.h"

#include "tests/cuda/case.h"
#include "tests/cuda/images.h"

namespace mimo::op_test {
namespace {

TEST(CudaPixelShuffle, BothWays) {
  const Images images{{2, 6, 0, 0, 4, 2, 0, 4, 6, 4, 2, 2}}, none{}, one{{4, 6}};
  struct {
    const Images& images;
    int cols;
  } const cases[] = {{images, 40},    // words of 16 bytes, a span of a run in part
                     {images, 3},     // 4 bytes
                     {one, 4 * 268},  // more than three spans of a run of bf16
                     {none, 8}};
  for (const auto& s : cases)
    for (bool inverse : {false, true})
      check_cuda([&]<class T>(Case<T>& c) {
        const int64_t x = s.images.rows(), y = x / 4;
        return PixelShuffle<T>{.images = s.images.count(),
                               .rows = x,
                               .sizes = c.ints(s.images.sizes),
                               .cu = c.ints(s.images.cu()),
                               .cols = s.cols,
                               .inverse = inverse,
                               .from = inverse ? c.in("y", y, 4 * s.cols) : c.in("x", x, s.cols),
                               .to = inverse ? c.out("x", x, s.cols) : c.out("y", y, 4 * s.cols)};
      });
}

// Words of 2 bytes: only a pointer off every larger boundary asks for them.
TEST(CudaPixelShuffle, OffTheBoundary) {
  const Images images{{2, 4, 4, 2}};
  for (bool inverse : {false, true})
    check_cuda([&]<class T>(Case<T>& c) {
      return PixelShuffle<T>{.images = images.count(),
                             .rows = images.rows(),
                             .sizes = c.ints(images.sizes),
                             .cu = c.ints(images.cu()),
                             .cols = 6,
                             .inverse = inverse,
                             .from = c.in("in", 1, images.rows() * 6 + 1) + 1,
                             .to = c.out("out", 1, images.rows() * 6 + 1) + 1};
    });
}

}  // namespace
}  // namespace mimo::op_test
