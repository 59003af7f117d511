#include "kernels/pixel_shuffle.h"

#include "kernels/cpu/threads.h"

namespace mimo {

// Two neighbouring rows of x are one run of 2 cols elements in y: a row of y is two such runs.
template <class T>
void run(const Cpu&, const PixelShuffle<T>& op) {
  const int64_t rows = op.rows / 4, run = 2 * int64_t{op.cols};
  parallel_for(rows, 4 * rows * run * int64_t{sizeof(T)}, [&](int64_t row) {
    const int i = image_of(row, op.cu, op.images, 4);
    const int64_t w = op.sizes[2 * i + 1], at = row - op.cu[i] / 4, y = at / (w / 2), x = at % (w / 2);
    for (int a = 0; a < 2; ++a) {
      const int64_t in_x = (op.cu[i] + (2 * y + a) * w + 2 * x) * op.cols, in_y = (2 * row + a) * run;
      std::copy_n(op.from + (op.inverse ? in_y : in_x), run, op.to + (op.inverse ? in_x : in_y));
    }
  });
}

MIMO_CPU_KERNEL(PixelShuffle);

}  // namespace mimo
