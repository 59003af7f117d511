#include "kernels/patchify.h"

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

struct PatchifyCase {
  std::vector<int32_t> sizes;  // height, width in patches of each image
  int channels, patch;

  int images() const { return static_cast<int>(sizes.size() / 2); }
  int64_t features() const { return int64_t{channels} * patch * patch; }
  std::vector<int32_t> cu() const {
    std::vector<int32_t> c{0};
    for (int i = 0; i < images(); ++i) c.push_back(c.back() + sizes[2 * i] * sizes[2 * i + 1]);
    return c;
  }
  // The images lie in memory in reverse order, so first_pixel matters.
  std::vector<int64_t> first_pixel() const {
    std::vector<int64_t> first;
    for (int i = 0; i < images(); ++i) first.push_back((cu().back() - cu()[i + 1]) * features());
    return first;
  }
  std::vector<Shape> inputs() const { return {{1, cu().back() * features()}}; }
  Shape output() const { return {cu().back(), features()}; }
  int64_t terms() const { return 0; }
  void reference(const Values& in, std::vector<double>& y) const {
    for (int i = 0; i < images(); ++i) {
      const int height = sizes[2 * i] * patch, width = sizes[2 * i + 1] * patch;
      for (int c = 0; c < channels; ++c)
        for (int row = 0; row < height; ++row)
          for (int col = 0; col < width; ++col) {
            const int64_t at = cu()[i] + (row / patch) * sizes[2 * i + 1] + col / patch;
            const int64_t feature = c * patch * patch + (row % patch) * patch + col % patch;
            y[at * features() + feature] = in[0][first_pixel()[i] + (c * height + row) * width + col];
          }
    }
  }
  PatchifyInputs kernel_inputs(const std::vector<int64_t>& first, const std::vector<int32_t>& rows) const {
    return {.images = images(),
            .rows = rows.back(),
            .first_pixel = first.data(),
            .sizes = sizes.data(),
            .cu = rows.data(),
            .channels = channels,
            .patch = patch};
  }
  template <class T>
  void cut(const T* pixels, T* patches) const {
    const auto first = first_pixel();
    const auto rows = cu();
    run_op(Patchify<T>{.in = kernel_inputs(first, rows), .pixels = pixels, .patches = patches});
  }
  template <class T>
  void join(const T* patches, T* pixels) const {
    const auto first = first_pixel();
    const auto rows = cu();
    run_op(Unpatchify<T>{.in = kernel_inputs(first, rows), .patches = patches, .pixels = pixels});
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    cut(in[0].ptr(), y.ptr());
  }
  template <class T>
  Values backward(const Inputs<T>& in, const Matrix<T>& dy) const {
    Matrix<T> dx(inputs()[0]), y(output()), back(inputs()[0]);
    join(dy.ptr(), dx.ptr());
    cut(in[0].ptr(), y.ptr());
    join(y.ptr(), back.ptr());
    EXPECT_EQ(back.values(), in[0].values()) << "Unpatchify does not undo Patchify";
    return {dx.values()};
  }
};

TEST(Patchify, Table) {
  check_op(PatchifyCase{{}, 3, 2});
  check_op(PatchifyCase{{1, 1}, 1, 1});
  check_op(PatchifyCase{{2, 3, 0, 0, 1, 4, 3, 0, 3, 2}, 2, 3});
}
TEST(Patchify, SameBitsForAnyNumberOfThreads) { check_threads(PatchifyCase{{9, 2, 1, 5, 6, 7}, 3, 16}); }

}  // namespace
}  // namespace mimo::op_test
