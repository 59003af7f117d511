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

}  // namespace

ImageGrids image_grids(const std::vector<int32_t>& sizes, const std::vector<int32_t>& cu) {
  return {Tensor::of(sizes), Tensor::of(cu), static_cast<int>(cu.size()) - 1, cu.back(), cu};
}

Tensor add_positions(const Tensor& x, Parameter& table, int grid, const ImageGrids& g) {
  const int cols = static_cast<int>(x.cols());
  Tensor y = empty_like(x);
  dispatch(x.dtype(), [&]<class T>() {
    launch(PositionEmbedding<T>{g.images, g.patches, g.sizes.data<int32_t>(), g.cu.data<int32_t>(), grid,
                                cols, table.value.data<T>(), x.data<T>(), x.ld(), y.data<T>(), y.ld()});
  });
  return record(
      y, "add_positions", {x},
      [node = x.node(), t = &table, grid, g, cols](const Tensor& dy) {
        accumulate(node, dy);
        if (!t->trainable) return;
        dispatch(dy.dtype(), [&]<class T>() {
          launch(PositionEmbeddingBackward<T>{g.images, g.sizes.data<int32_t>(), g.cu.data<int32_t>(), grid,
                                              cols, dy.data<T>(), dy.ld(), grad_of<T>(*t)});
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
      launch(PixelShuffle<T>{g.images, g.patches, g.sizes.data<int32_t>(), g.cu.data<int32_t>(), cols,
                             inverse, from.data<T>(), out.data<T>()});
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
    launch(ScatterRows<T>{g.patches, cols, rows.patches.data<int32_t>(), x.data<T>(), x.ld(), y.data<T>(),
                          y.ld()});
    // All k tokens of an image lie in one row of k * cols; a source row stride of 0 gives every image the
    // same row.
    Tensor repeated = Tensor::empty({g.images, k * cols}, x.dtype(), x.device());
    launch(Copy<T>{g.images, k * cols, tokens.value.data<T>(), 0, repeated.data<T>(), repeated.ld()});
    launch(ScatterRows<T>{extra, cols, rows.tokens.data<int32_t>(), repeated.data<T>(), cols, y.data<T>(),
                          y.ld()});
  });
  return record(
      y, "prepend_class_tokens", {x},
      [node = x.node(), shape = x.shape(), t = &tokens, g, rows, k, cols, extra](const Tensor& dy) {
        dispatch(dy.dtype(), [&]<class T>() {
          if (node) {
            Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
            launch(GatherRows<T>{g.patches, cols, rows.patches.data<int32_t>(), dy.data<T>(), dy.ld(),
                                 dx.data<T>(), dx.ld()});
            accumulate(node, dx);
          }
          if (!t->trainable) return;
          Tensor all = Tensor::empty({extra, cols}, dy.dtype(), dy.device());
          launch(GatherRows<T>{extra, cols, rows.tokens.data<int32_t>(), dy.data<T>(), dy.ld(), all.data<T>(),
                               all.ld()});
          launch(AddColumnSums<T>{g.images, static_cast<int>(k * cols), all.data<T>(), k * cols,
                                  grad_of<T>(*t)});
        });
      },
      tokens.trainable);
}

Tensor drop_class_tokens(const Tensor& x, int count, const ImageGrids& g) {
  if (count == 0) return x;
  return gather_rows(x, class_token_rows(g, count).patches);
}

}  // namespace mimo
