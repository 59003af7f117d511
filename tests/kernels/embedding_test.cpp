#include "kernels/embedding.h"

#include "tests/kernels/table.h"

namespace mimo::op_test {
namespace {

struct EmbeddingCase {
  std::vector<int32_t> ids;
  int64_t first, rows;
  int cols;

  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
  std::vector<Shape> inputs() const { return {{rows, cols}}; }
  Shape output() const { return {tokens(), cols, 3}; }
  int64_t terms() const { return tokens(); }
  void reference(const Values& in, std::vector<double>& y) const {
    for (int64_t t = 0; t < tokens(); ++t)
      for (int c = 0; c < cols; ++c) {
        const bool here = ids[t] >= first && ids[t] < first + rows;
        y[t * cols + c] = here ? in[0][(ids[t] - first) * cols + c] : 0;
      }
  }
  EmbeddingInputs kernel_inputs() const {
    return {.tokens = tokens(), .cols = cols, .first = first, .rows = rows, .ids = ids.data()};
  }
  template <class T>
  void forward(const Inputs<T>& in, Matrix<T>& y) const {
    run_op(Embedding<T>{.in = kernel_inputs(), .table = in[0].ptr(), .out = y});
  }
  template <class T>
  Values backward(const Inputs<T>&, const Matrix<T>& dy) const {
    auto dtable = accumulator<T>({rows, cols});
    run_op(EmbeddingBackward<T>{.in = kernel_inputs(), .dout = dy, .dtable = dtable.ptr()});
    return {dtable.values(kBefore)};
  }
};

TEST(Embedding, Table) {
  for (int cols : {1, 7, 64, 130}) {
    check_op(EmbeddingCase{{}, 0, 5, cols});
    check_op(EmbeddingCase{{3, 0, 3, 3, -1, 4, 0}, 0, 5, cols});             // repeated ids, a negative one
    check_op(EmbeddingCase{{9, 10, 12, 13, 0, -100, 12, 11}, 10, 3, cols});  // a slice of the vocabulary
    check_op(EmbeddingCase{{1, 2}, 1, 0, cols});                             // an empty slice
  }
}

// The lookup of the whole table is the sum of the lookups of its slices.
TEST(Embedding, SlicesAddUp) {
  const std::vector<int32_t> ids{0, 9, 4, 3, -1, 5};
  const int cols = 6;
  const auto table = random_values(10 * cols, 1);
  const auto part = [&](int64_t first, int64_t rows) {
    const EmbeddingCase op{ids, first, rows, cols};
    return run_forward<float>(op, {{table.begin() + first * cols, table.begin() + (first + rows) * cols}});
  };
  const auto whole = part(0, 10), low = part(0, 4), high = part(4, 6);
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(whole[i], low[i] + high[i]);
}

TEST(Embedding, SameBitsForAnyNumberOfThreads) {
  std::vector<int32_t> ids(500);
  for (int i = 0; i < 500; ++i) ids[i] = i * i % 37;
  check_threads(EmbeddingCase{ids, 0, 37, 300});
}

}  // namespace
}  // namespace mimo::op_test
