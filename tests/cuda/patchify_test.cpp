#include "kernels/patchify.h"

#include "tests/cuda/case.h"
#include "tests/cuda/images.h"

namespace mimo::op_test {
namespace {

// The images lie in memory in reverse order, so first_pixel matters.
std::vector<int64_t> first_pixel(const Images& images, int64_t features) {
  std::vector<int64_t> first;
  for (int i = 0; i < images.count(); ++i) first.push_back((images.rows() - images.cu()[i + 1]) * features);
  return first;
}

TEST(CudaPatchify, CutAndJoin) {
  struct {
    Images images;
    int channels, patch;
    int64_t offset;
  } const cases[] = {
      {{{2, 3, 0, 0, 1, 4, 3, 0, 3, 2, 1, 1}}, 3, 16, 0},  // empty images too; 16 bytes a word
      {{{1, 2, 5, 3}}, 2, 14, 0},                          // 4 bytes of bf16
      {{{3, 5, 2, 2}}, 3, 3, 0},                           // 2 bytes of bf16
      {{{1, 2, 2, 1}}, 1, 16, 1},                          // pixels that start off a boundary
      {{{2, 2}}, 3, 32, 0},                                // more than three rounds of a warp
      {{}, 3, 16, 0},
  };
  for (const auto& s : cases) {
    const int64_t features = int64_t{s.channels} * s.patch * s.patch, rows = s.images.rows();
    const int64_t pixels = rows * features;
    const auto inputs = [&]<class T>(Case<T>& c) -> PatchifyInputs {
      return {.images = s.images.count(),
              .rows = rows,
              .first_pixel = c.data(first_pixel(s.images, features)),
              .sizes = c.ints(s.images.sizes),
              .cu = c.ints(s.images.cu()),
              .channels = s.channels,
              .patch = s.patch};
    };
    check_cuda([&]<class T>(Case<T>& c) {
      return Patchify<T>{.in = inputs(c),
                         .pixels = c.in("pixels", 1, s.offset + pixels) + s.offset,
                         .patches = c.out("patches", rows, features)};
    });
    check_cuda([&]<class T>(Case<T>& c) {
      return Unpatchify<T>{.in = inputs(c),
                           .patches = c.in("patches", rows, features),
                           .pixels = c.out("pixels", 1, s.offset + pixels) + s.offset};
    });
  }
}

}  // namespace
}  // namespace mimo::op_test
