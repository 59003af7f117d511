// Ops on packed grids of patches: position embedding, pixel shuffle, class tokens.
#include "kernels/elementwise.h"
#include "kernels/pixel_shuffle.h"
#include "kernels/position_embedding.h"
#include "kernels/rows.h"
#include "nn/ops.h"

namespace mimo {
namespace {

// The row of every patch in a stream with k class tokens before each image, and the rows of the class tokens.
struct ClassTokenRows {
  Tensor patches, tokens;
};
ClassTokenRows class_token_rows(const ImageGrids& g, int k) {
  const std::vector<int32_t>& cu = g.first;
  std::vector<int32_t> patches(g.patches), tokens(static_cast<size_t>(g.images) * k);
  for (int i = 0; i < g.images; ++i) {
    for (int j = 0; j < k; ++j) tokens[static_cast<size_t>(i) * k + j] = cu[i] + i * k + j;
    for (int32_t p = cu[i]; p < cu[i + 1]; ++p) patches[p] = p + (i + 1) * k;
  }
  return {Tensor::of(patches), Tensor::of(tokens)};
}

PositionEmbeddingInputs position_inputs(const ImageGrids& g, int grid, int64_t cols) {
  return {.images = g.images,
          .sizes = g.sizes.data<int32_t>(),
          .cu = g.cu.data<int32_t>(),
          .grid = grid,
          .cols = static_cast<int>(cols)};
}

}  // namespace

ImageGrids image_grids(const std::vector<int32_t>& sizes) {
  std::vector<int32_t> images, cu{0};
  for (size_t i = 0; i < sizes.size(); i += 3)
    for (int32_t frame = 0; frame < sizes[i]; ++frame) {
      images.insert(images.end(), {sizes[i + 1], sizes[i + 2]});
      cu.push_back(cu.back() + sizes[i + 1] * sizes[i + 2]);
    }
  return {Tensor::of(images), Tensor::of(cu), static_cast<int>(cu.size()) - 1, cu.back(), cu};
}

Tensor add_positions(const Tensor& x, Parameter& table, int grid, const ImageGrids& g) {
  Tensor y = empty_like(x);
  dispatch(x.dtype(), [&]<class T>() {
    launch(PositionEmbedding<T>{.in = position_inputs(g, grid, x.cols()),
                                .rows = g.patches,
                                .table = table.value.data<T>(),
                                .x = rows_of<T>(x),
                                .out = rows_of<T>(y)});
  });
  return record(
      y, "add_positions", {x},
      [node = x.node(), t = &table, grid, g](const Tensor& dy) {
        accumulate(node, dy);
        if (!t->trainable) return;
        dispatch(dy.dtype(), [&]<class T>() {
          launch(PositionEmbeddingBackward<T>{
              .in = position_inputs(g, grid, dy.cols()), .dout = rows_of<T>(dy), .dtable = grad_of<T>(*t)});
        });
      },
      table.trainable);
}

Tensor pixel_shuffle(const Tensor& x, const ImageGrids& g) {
  const int cols = static_cast<int>(x.cols());
  const auto shuffle = [g, cols](const Tensor& in, Dims shape, bool inverse) {
    Tensor out = Tensor::empty(std::move(shape), in.dtype(), in.device());
    const Tensor from = contiguous(in);
    dispatch(in.dtype(), [&]<class T>() {
      launch(PixelShuffle<T>{.images = g.images,
                             .rows = g.patches,
                             .sizes = g.sizes.data<int32_t>(),
                             .cu = g.cu.data<int32_t>(),
                             .cols = cols,
                             .inverse = inverse,
                             .from = from.data<T>(),
                             .to = out.data<T>()});
    });
    return out;
  };
  return record(shuffle(x, {x.rows() / 4, 4 * x.cols()}, false), "pixel_shuffle", {x},
                [node = x.node(), shape = x.shape(), shuffle](const Tensor& dy) {
                  accumulate(node, shuffle(dy, shape, true));
                });
}

Tensor prepend_class_tokens(const Tensor& x, Parameter& tokens, const ImageGrids& g) {
  const int k = static_cast<int>(tokens.value.dim(0));
  const int64_t cols = x.cols(), extra = static_cast<int64_t>(g.images) * k;
  const ClassTokenRows rows = class_token_rows(g, k);
  Tensor y = Tensor::empty({g.patches + extra, cols}, x.dtype(), x.device());
  dispatch(x.dtype(), [&]<class T>() {
    launch(ScatterRows<T>{.count = g.patches,
                          .cols = cols,
                          .rows = rows.patches.data<int32_t>(),
                          .x = rows_of<T>(x),
                          .out = rows_of<T>(y)});
    // All k tokens of an image lie in one row of k * cols; a source row stride of 0 gives every image the
    // same row.
    Tensor repeated = Tensor::empty({g.images, k * cols}, x.dtype(), x.device());
    launch(Copy<T>{
        .rows = g.images, .cols = k * cols, .x = {tokens.value.data<T>(), 0}, .y = rows_of<T>(repeated)});
    launch(ScatterRows<T>{.count = extra,
                          .cols = cols,
                          .rows = rows.tokens.data<int32_t>(),
                          .x = {repeated.data<T>(), cols},
                          .out = rows_of<T>(y)});
  });
  return record(
      y, "prepend_class_tokens", {x},
      [node = x.node(), shape = x.shape(), t = &tokens, g, rows, k, cols, extra](const Tensor& dy) {
        dispatch(dy.dtype(), [&]<class T>() {
          if (node) {
            Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
            launch(GatherRows<T>{.count = g.patches,
                                 .cols = cols,
                                 .rows = rows.patches.data<int32_t>(),
                                 .x = rows_of<T>(dy),
                                 .out = rows_of<T>(dx)});
            accumulate(node, dx);
          }
          if (!t->trainable) return;
          Tensor all = Tensor::empty({extra, cols}, dy.dtype(), dy.device());
          launch(GatherRows<T>{.count = extra,
                               .cols = cols,
                               .rows = rows.tokens.data<int32_t>(),
                               .x = rows_of<T>(dy),
                               .out = rows_of<T>(all)});
          launch(AddColumnSums<T>{.rows = g.images,
                                  .cols = static_cast<int>(k * cols),
                                  .x = {all.data<T>(), k * cols},
                                  .y = grad_of<T>(*t)});
        });
      },
      tokens.trainable);
}

Tensor drop_class_tokens(const Tensor& x, int count, const ImageGrids& g) {
  if (count == 0) return x;
  return gather_rows(x, class_token_rows(g, count).patches);
}

}  // namespace mimo
