#include <algorithm>

#include "kernels/patchify.h"
#include "kernels/pixel_shuffle.h"
#include "kernels/position_embedding.h"
#include "tools/bench/bench.h"

namespace mimo::bench {
namespace {

// Images of `side` by `side` patches of 3 x 16 x 16 pixels, embedded in 1280 columns from a 128 x 128 table.
template <class T>
struct Images {
  int images, side;
  static constexpr int channels = 3, patch = 16, features = channels * patch * patch, cols = 1280, grid = 128;
  Array<int32_t> sizes, cu;
  Array<int64_t> first_pixel;

  explicit Images(const benchmark::State& state)
      : images(static_cast<int>(state.range(0))),
        side(static_cast<int>(state.range(1))),
        sizes(2 * images, side),
        cu(packed(images, side * side)) {
    std::vector<int64_t> first(images);
    for (int i = 0; i < images; ++i) first[i] = int64_t{i} * side * side * features;
    first_pixel = first;
  }
  int64_t rows() const { return int64_t{images} * side * side; }
  PatchifyInputs patchify_inputs() const {
    return {.images = images,
            .rows = rows(),
            .first_pixel = first_pixel.data(),
            .sizes = sizes.data(),
            .cu = cu.data(),
            .channels = channels,
            .patch = patch};
  }
  PositionEmbeddingInputs position_inputs() const {
    return {.images = images, .sizes = sizes.data(), .cu = cu.data(), .grid = grid, .cols = cols};
  }
  // Elements of the table that are used: four neighbours a patch, the same ones for all images.
  double used() const { return std::min(4.0 * side * side, double(grid) * grid) * cols; }
};

template <class T>
void patchify(benchmark::State& state) {
  const Images<T> in(state);
  const int64_t n = in.rows() * in.features;
  const auto pixels = operand<T>(n);
  Array<T> patches(n);
  measure(state, Patchify<T>{.in = in.patchify_inputs(), .pixels = pixels.data(), .patches = patches.data()},
          0, 2.0 * n * sizeof(T));
}

template <class T>
void unpatchify(benchmark::State& state) {
  const Images<T> in(state);
  const int64_t n = in.rows() * in.features;
  const auto patches = operand<T>(n);
  Array<T> pixels(n);
  measure(state,
          Unpatchify<T>{.in = in.patchify_inputs(), .patches = patches.data(), .pixels = pixels.data()}, 0,
          2.0 * n * sizeof(T));
}

template <class T>
void position_embedding(benchmark::State& state) {
  const Images<T> in(state);
  const int64_t n = in.rows() * in.cols;
  const auto table = operand<T>(int64_t{in.grid} * in.grid * in.cols), x = operand<T>(n);
  Array<T> out(n);
  measure(state,
          PositionEmbedding<T>{.in = in.position_inputs(),
                               .rows = in.rows(),
                               .table = table.data(),
                               .x = {x.data(), in.cols},
                               .out = {out.data(), in.cols}},
          8.0 * n, (2.0 * n + in.used()) * sizeof(T));
}

template <class T>
void position_embedding_backward(benchmark::State& state) {
  const Images<T> in(state);
  const int64_t n = in.rows() * in.cols;
  const auto dout = operand<T>(n);
  Array<acc_t<T>> dtable(int64_t{in.grid} * in.grid * in.cols);
  measure(state,
          PositionEmbeddingBackward<T>{
              .in = in.position_inputs(), .dout = {dout.data(), in.cols}, .dtable = dtable.data()},
          8.0 * n, double(n) * sizeof(T) + 2 * in.used() * sizeof(acc_t<T>));
}

template <class T>
void pixel_shuffle(benchmark::State& state) {
  const Images<T> in(state);
  const int64_t n = in.rows() * in.cols;
  const auto x = operand<T>(n);
  Array<T> y(n);
  measure(state,
          PixelShuffle<T>{.images = in.images,
                          .rows = in.rows(),
                          .sizes = in.sizes.data(),
                          .cu = in.cu.data(),
                          .cols = in.cols,
                          .from = x.data(),
                          .to = y.data()},
          0, 2.0 * n * sizeof(T));
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"images", "side"});
  if (large())  // of 512 x 512 pixels
    b->Args({16, 32});
  else
    b->Args({64, 4})->Args({4, 32});
}

MIMO_BENCHMARK(patchify, sizes);
MIMO_BENCHMARK(unpatchify, sizes);
MIMO_BENCHMARK(position_embedding, sizes);
MIMO_BENCHMARK(position_embedding_backward, sizes);
MIMO_BENCHMARK(pixel_shuffle, sizes);

}  // namespace
}  // namespace mimo::bench
