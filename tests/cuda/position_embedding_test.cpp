#include "kernels/position_embedding.h"

#include "tests/cuda/case.h"
#include "tests/cuda/images.h"

namespace mimo::op_test {
namespace {

// More images than a warp looks at at once, some of them empty.
Images many() {
  Images images;
  for (int i = 0; i < 70; ++i) {
    images.sizes.push_back(i * 7 % 5);
    images.sizes.push_back(i * 5 % 4);
  }
  return images;
}

struct Table {
  Images images;
  int grid, cols;
  int64_t pad = 0;
};
const Table tables[] = {
    {{{4, 4}}, 4, 8},                                 // the identity
    {{{1, 1, 2, 2, 7, 7, 13, 9}}, 4, 24, 8},          // down and up
    {{{2, 5, 0, 0, 6, 1, 4, 3, 0, 2, 5, 5}}, 4, 40},  // crops, nothing at all
    {{{3, 2}}, 1, 16},                                // one cell
    {{{3, 2, 1, 4}}, 5, 1288},                        // many vectors a lane
    {{{3, 2, 6, 7}}, 5, 37},                          // rows on no boundary
    {{{5, 3}}, 3, 70, 1},                             // more columns than lanes, one by one
    {many(), 3, 8},
    {{}, 4, 8},
};

template <class T>
PositionEmbeddingInputs inputs(Case<T>& c, const Table& t) {
  return {.images = t.images.count(),
          .sizes = c.ints(t.images.sizes),
          .cu = c.ints(t.images.cu()),
          .grid = t.grid,
          .cols = t.cols};
}

TEST(CudaPositionEmbedding, Forward) {
  for (const Table& t : tables)
    for (bool add : {false, true})
      check_cuda([&]<class T>(Case<T>& c) {
        const int64_t rows = t.images.rows();
        return PositionEmbedding<T>{.in = inputs(c, t),
                                    .rows = rows,
                                    .table = c.in("table", t.grid * t.grid, t.cols),
                                    .x = add ? c.in("x", rows, t.cols, t.pad) : nullptr,
                                    .out = c.out("out", rows, t.cols, t.pad)};
      });
}

TEST(CudaPositionEmbedding, Backward) {
  for (const Table& t : tables)
    check_cuda([&]<class T>(Case<T>& c) {
      return PositionEmbeddingBackward<T>{.in = inputs(c, t),
                                          .dout = c.in("dout", t.images.rows(), t.cols, t.pad),
                                          .dtable = c.sum("dtable", t.grid * t.grid, t.cols)};
    });
}

}  // namespace
}  // namespace mimo::op_test
