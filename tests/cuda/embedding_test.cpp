#include "kernels/embedding.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Table {
  std::vector<int32_t> ids;
  int64_t first, rows;
  int cols;
  int64_t pad = 0;

  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
};

std::vector<int32_t> ids(int n, int rows, int step) {
  std::vector<int32_t> v(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) v[static_cast<size_t>(i)] = i * step % rows;
  return v;
}
// One id again and again, over three groups of a warp and more, then others.
std::vector<int32_t> frequent() {
  std::vector<int32_t> v = ids(300, 5, 3);
  for (size_t i = 20; i < 190; ++i) v[i] = 6;
  v[7] = v[150] = -1;
  return v;
}

template <class T>
EmbeddingInputs inputs(Case<T>& c, const Table& t) {
  return {.tokens = t.tokens(), .cols = t.cols, .first = t.first, .rows = t.rows, .ids = c.ints(t.ids)};
}

TEST(CudaEmbedding, Forward) {
  const Table tables[] = {
      {{3, 0, 3, 3, -1, 4, 0, 2, 1}, 0, 5, 64},            // repeated ids, a negative one
      {{9, 10, 12, 13, 0, -100, 12, 11}, 10, 3, 1544, 8},  // a slice of the vocabulary, three spans
      {{9, 10, 12}, 10, 3, 6, 2},                          // 4 bytes of bf16
      {{9, 10, 12}, 10, 3, 7},                             // rows on no boundary
      {{1, 2}, 1, 0, 8},                                   // an empty slice
      {{}, 0, 5, 8},
  };
  for (const Table& t : tables)
    check_cuda([&]<class T>(Case<T>& c) {
      return Embedding<T>{.in = inputs(c, t),
                          .table = c.in("table", t.rows, t.cols),
                          .out = c.out("out", t.tokens(), t.cols, t.pad)};
    });
}

TEST(CudaEmbedding, Backward) {
  const Table tables[] = {
      {{3, 0, 3, 3, -1, 4, 0, 2, 1}, 0, 5, 16},
      {{9, 10, 12, 13, 0, -100, 12, 11}, 10, 3, 264, 8},  // a slice of the vocabulary; two warps of columns
      {frequent(), 0, 7, 40},
      {frequent(), 1, 5, 37},                    // rows on no boundary
      {std::vector<int32_t>(1500, 2), 0, 3, 8},  // one id, through more groups than a warp has lanes
      {std::vector<int32_t>(100, -1), 0, 3, 8},  // none
      {ids(32, 32, 5), 0, 40, 8},                // one group
      {ids(3100, 100003, 7919), 0, 100003, 1},   // four tiles, one merge
      {{1, 2}, 1, 0, 8},
      {{}, 0, 5, 8},
  };
  for (const Table& t : tables)
    check_cuda([&]<class T>(Case<T>& c) {
      return EmbeddingBackward<T>{.in = inputs(c, t),
                                  .dout = c.in("dout", t.tokens(), t.cols, t.pad),
                                  .dtable = c.sum("dtable", t.rows, t.cols)};
    });
}

// Sums that round: other bits in every order of tokens, so all have to be taken in one.
TEST(CudaEmbedding, BackwardInOneOrder) {
  const Table t{ids(8300, 977, 331), 100, 700, 8};  // nine tiles, two merges
  std::vector<double> dout = random_values(t.tokens() * t.cols, 1);
  for (size_t i = 0; i < dout.size(); ++i) dout[i] = std::ldexp(dout[i], static_cast<int>(i * 7 % 23));
  check_cuda([&]<class T>(Case<T>& c) {
    return EmbeddingBackward<T>{.in = inputs(c, t),
                                .dout = c.in("dout", t.tokens(), t.cols, 0, dout),
                                .dtable = c.sum("dtable", t.rows, t.cols)};
  });
}

// A row that begins with element 2^32 of the table, of which only it is there; its tokens fill two groups.
TEST(CudaEmbedding, BackwardOfALargeTable) {
  const int cols = 4096, row = 1 << 20, tokens = 33;
  check_cuda([&]<class T>(Case<T>& c) {
    return EmbeddingBackward<T>{.in = {.tokens = tokens,
                                       .cols = cols,
                                       .first = 0,
                                       .rows = row + 1,
                                       .ids = c.ints(std::vector<int32_t>(tokens, row))},
                                .dout = c.in("dout", tokens, cols),
                                .dtable = c.sum("dtable", 1, cols) - int64_t{row} * cols};
  });
}

}  // namespace
}  // namespace mimo::op_test
