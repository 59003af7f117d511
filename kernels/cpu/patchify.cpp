#include "kernels/patchify.h"

#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

// Calls move(pixels, patch, patch length) for each run of `patch` pixels that lies end to end in both.
template <class F>
void for_each_run(const PatchifyInputs& in, int64_t bytes_per_element, F&& move) {
  const int64_t rows = in.rows, features = int64_t{in.channels} * in.patch * in.patch;
  parallel_for(rows, 2 * rows * features * bytes_per_element, [&](int64_t row) {
    const int i = image_of(row, in.cu, in.images);
    const int64_t h = in.sizes[2 * i], w = in.sizes[2 * i + 1], at = row - in.cu[i], py = at / w, px = at % w;
    const int64_t width = w * in.patch, plane = h * in.patch * width;
    const int64_t corner = in.first_pixel[i] + py * in.patch * width + px * in.patch;
    for (int c = 0; c < in.channels; ++c)
      for (int y = 0; y < in.patch; ++y)
        move(corner + c * plane + y * width, row * features + (int64_t{c} * in.patch + y) * in.patch);
  });
}

}  // namespace

template <class T>
void run(const Cpu&, const Patchify<T>& op) {
  for_each_run(op.in, sizeof(T), [&](int64_t pixel, int64_t feature) {
    std::copy_n(op.pixels + pixel, op.in.patch, op.patches + feature);
  });
}

template <class T>
void run(const Cpu&, const Unpatchify<T>& op) {
  for_each_run(op.in, sizeof(T), [&](int64_t pixel, int64_t feature) {
    std::copy_n(op.patches + feature, op.in.patch, op.pixels + pixel);
  });
}

MIMO_CPU_KERNEL(Patchify);
MIMO_CPU_KERNEL(Unpatchify);

}  // namespace mimo
