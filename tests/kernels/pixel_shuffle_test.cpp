#include "kernels/pixel_shuffle.h"

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

struct PixelShuffleCase {
  std::vector<int32_t> sizes;  // h, w of each image
  int cols;

  int images() const { return static_cast<int>(sizes.size() / 2); }
  std::vector<int32_t> cu() const {
    std::vector<int32_t> c{0};
    for (int i = 0; i < images(); ++i) c.push_back(c.back() + sizes[2 * i] * sizes[2 * i + 1]);
    return c;
  }
  std::vector<Shape> inputs() const { return {{cu().back(), cols}}; }
  Shape output() const { return {cu().back() / 4, 4 * cols}; }
  int64_t terms() const { return 0; }
  void reference(const Values& in, std::vector<double>& y) const {
    const auto first = cu();
    for (int i = 0; i < images(); ++i) {
      const int h = sizes[2 * i], w = sizes[2 * i + 1];
      for (int row = 0; row < h; ++row)
        for (int col = 0; col < w; ++col)
          for (int k = 0; k < cols; ++k) {
            const int64_t to = first[i] / 4 + (row / 2) * (w / 2) + col / 2, part = (row % 2) * 2 + col % 2;
            y[(to * 4 + part) * cols + k] = in[0][(first[i] + row * w + col) * cols + k];
          }
    }
  }
  template <class T>
  void apply(const T* in, T* out, bool inverse) const {
    const auto first = cu();
    run_op(PixelShuffle<T>{.images = images(),
                           .rows = first.back(),
                           .sizes = sizes.data(),
                           .cu = first.data(),
                           .cols = cols,
                           .inverse = inverse,
                           .from = in,
                           .to = out});
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    apply(in[0].ptr(), y.ptr(), false);
  }
  template <class T>
  Values backward(const Inputs<T>& in, const Matrix<T>& dy) const {
    Matrix<T> dx(inputs()[0]), y(output()), back(inputs()[0]);
    apply(dy.ptr(), dx.ptr(), true);
    apply(in[0].ptr(), y.ptr(), false);
    apply(y.ptr(), back.ptr(), true);
    EXPECT_EQ(back.values(), in[0].values()) << "the inverse does not undo it";
    return {dx.values()};
  }
};

TEST(PixelShuffle, Table) {
  check_op(PixelShuffleCase{{}, 3});
  check_op(PixelShuffleCase{{2, 2}, 1});
  check_op(PixelShuffleCase{{2, 6, 0, 0, 4, 2, 0, 4, 6, 4}, 3});
}
TEST(PixelShuffle, SameBitsForAnyNumberOfThreads) {
  check_threads(PixelShuffleCase{{2, 64, 30, 20, 4, 8}, 64});
}

}  // namespace
}  // namespace mimo::op_test
