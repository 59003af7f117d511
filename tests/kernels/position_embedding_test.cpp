#include "kernels/position_embedding.h"

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

// What one axis of the resize does, as a dense matrix [m, grid]: each output is a mixture of two inputs.
std::vector<double> resize_matrix(int m, int grid) {
  std::vector<double> a(m * grid, 0.0);
  for (int i = 0; i < m; ++i) {
    const double centre = std::max(0.0, grid * (2.0 * i + 1) / (2.0 * m) - 0.5);
    for (int j = 0; j < grid; ++j) {  // a hat of width one around the centre, constant beyond the last cell
      const double hat = std::max(0.0, 1 - std::fabs(centre - j));
      a[i * grid + j] = j == grid - 1 && centre > j ? 1 : hat;
    }
  }
  return a;
}

struct PositionEmbeddingCase {
  std::vector<int32_t> sizes;
  int grid, cols;
  bool add;  // to x, or the position alone

  int images() const { return static_cast<int>(sizes.size() / 2); }
  std::vector<int32_t> cu() const {
    std::vector<int32_t> c{0};
    for (int i = 0; i < images(); ++i) c.push_back(c.back() + sizes[2 * i] * sizes[2 * i + 1]);
    return c;
  }
  std::vector<Shape> inputs() const {
    std::vector<Shape> s{{grid * grid, cols}};
    if (add) s.push_back({cu().back(), cols, 3});
    return s;
  }
  Shape output() const { return {cu().back(), cols, 2}; }
  int64_t terms() const { return 5 + cu().back(); }
  void reference(const Values& in, std::vector<double>& y) const {
    for (int i = 0; i < images(); ++i) {
      const int h = sizes[2 * i], w = sizes[2 * i + 1], m = std::max(h, w);
      const auto a = resize_matrix(m, grid);
      for (int r = 0; r < h; ++r)
        for (int c = 0; c < w; ++c)
          for (int k = 0; k < cols; ++k) {
            const int64_t at = (cu()[i] + r * w + c) * cols + k;
            y[at] = add ? in[1][at] : 0;
            for (int u = 0; u < grid; ++u)
              for (int v = 0; v < grid; ++v)
                y[at] += a[r * grid + u] * a[c * grid + v] * in[0][(u * grid + v) * cols + k];
          }
    }
  }
  PositionEmbeddingInputs kernel_inputs(const std::vector<int32_t>& first) const {
    return {.images = images(), .sizes = sizes.data(), .cu = first.data(), .grid = grid, .cols = cols};
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    const auto first = cu();
    run_op(PositionEmbedding<T>{.in = kernel_inputs(first),
                                .rows = first.back(),
                                .table = in[0].ptr(),
                                .x = add ? in[1] : mimo::Rows<const T>{},
                                .out = y});
  }
  template <class T>
  Values backward(const Inputs<T>&, const Matrix<T>& dy) const {
    const auto first = cu();
    auto dtable = accumulator<T>({grid * grid, cols});
    run_op(PositionEmbeddingBackward<T>{.in = kernel_inputs(first), .dout = dy, .dtable = dtable.ptr()});
    Values d{dtable.values(kBefore)};
    if (add) d.push_back(dy.values());
    return d;
  }
};

TEST(PositionEmbedding, Table) {
  check_op(PositionEmbeddingCase{{}, 4, 3, true});
  for (bool add : {false, true}) {
    check_op(PositionEmbeddingCase{{4, 4}, 4, 3, add});                          // identity
    check_op(PositionEmbeddingCase{{1, 1, 2, 2, 7, 7}, 4, 3, add});              // down and up
    check_op(PositionEmbeddingCase{{2, 5, 0, 0, 6, 1, 4, 3, 0, 2}, 4, 2, add});  // crops, nothing at all
    check_op(PositionEmbeddingCase{{3, 2}, 1, 2, add});                          // one cell
  }
}

TEST(PositionEmbedding, WholeGridIsTheIdentity) {
  const PositionEmbeddingCase op{{5, 5}, 5, 7, false};
  const Values in = make_inputs(op);
  EXPECT_EQ(run_forward<float>(op, in), in[0]);
  EXPECT_EQ(run_forward<bf16>(op, in), in[0]);
}

TEST(PositionEmbedding, SameBitsForAnyNumberOfThreads) {
  check_threads(PositionEmbeddingCase{{16, 12, 3, 20, 9, 9}, 16, 96, true});
}

}  // namespace
}  // namespace mimo::op_test
