#include "kernels/patchify.h"

#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

// Calls move(pixels, patch, patch length) for each run of `patch` pixels that lies end to end in both.
template <class Op, class F>
void for_each_run(const Op& op, int64_t bytes_per_element, F&& move) {
  const int64_t rows = op.rows, features = int64_t{op.channels} * op.patch * op.patch;
  parallel_for(rows, 2 * rows * features * bytes_per_element, [&](int64_t row) {
    const int i = image_of(row, op.cu, op.images);
    const int64_t h = op.sizes[2 * i], w = op.sizes[2 * i + 1], at = row - op.cu[i], py = at / w, px = at % w;
    const int64_t width = w * op.patch, plane = h * op.patch * width;
    const int64_t corner = op.first_pixel[i] + py * op.patch * width + px * op.patch;
    for (int c = 0; c < op.channels; ++c)
      for (int y = 0; y < op.patch; ++y)
        move(corner + c * plane + y * width, row * features + (int64_t{c} * op.patch + y) * op.patch);
  });
}

}  // namespace

template <class T>
void run(const Cpu&, const Patchify<T>& op) {
  for_each_run(op, sizeof(T), [&](int64_t pixel, int64_t feature) {
    std::copy_n(op.pixels + pixel, op.patch, op.patches + feature);
  });
}

template <class T>
void run(const Cpu&, const Unpatchify<T>& op) {
  for_each_run(op, sizeof(T), [&](int64_t pixel, int64_t feature) {
    std::copy_n(op.patches + feature, op.patch, op.pixels + pixel);
  });
}

MIMO_CPU_KERNEL(Patchify);
MIMO_CPU_KERNEL(Unpatchify);

}  // namespace mimo
