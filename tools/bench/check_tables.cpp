// Samples of ops that follow a table: of rows, of images, of tensors.
#include <algorithm>
#include <numeric>

#include "tools/bench/check.h"

namespace mimo::bench {
namespace {

int64_t count(const Picks& p) { return static_cast<int64_t>(p.size()); }

std::vector<int32_t> iota(int64_t n) {
  std::vector<int32_t> v(static_cast<size_t>(n));
  std::iota(v.begin(), v.end(), 0);
  return v;
}

// Rows of a table: some of those that an op reads or writes, by their places in its list.
struct Listed {
  Picks places, rows;
  Listed(const int32_t* list, int64_t n) : places(some(n)) {
    for (double row : fetch(list, places, 1, 1)) rows.push_back(static_cast<int64_t>(row));
  }
};

// The last image of an op's, alone.
struct LastImage {
  Picks rows;
  std::vector<int32_t> sizes, cu;
  template <class Op>
  explicit LastImage(const Op& op) : sizes(fetch_bytes(op.sizes + 2 * (op.images - 1), 2)) {
    const std::vector<int32_t> at = fetch_bytes(op.cu + op.images - 1, 2);
    for (int64_t i = at[0]; i < at[1]; ++i) rows.push_back(i);
    cu = {0, at[1] - at[0]};
  }
};

}  // namespace

template <class T>
void sample(Check& c, const GatherRows<T>& op) {
  const Listed l(op.rows, op.count);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return GatherRows<U>{.count = count(l.rows),
                         .cols = op.cols,
                         .rows = m.data(iota(count(l.rows))),
                         .x = m.in(op.x, l.rows, op.cols),
                         .out = m.out("out", op.out, l.places, op.cols)};
  });
}

template <class T>
void sample(Check& c, const ScatterRows<T>& op) {
  const Listed l(op.rows, op.count);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return ScatterRows<U>{.count = count(l.rows),
                          .cols = op.cols,
                          .rows = m.data(iota(count(l.rows))),
                          .x = m.in(op.x, l.places, op.cols),
                          .out = m.out("out", op.out, l.rows, op.cols)};
  });
}

// Benchmarks list every row once.
template <class T>
void sample(Check& c, const ScatterAddRows<T>& op) {
  const Listed l(op.rows, op.count);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return ScatterAddRows<U>{.count = count(l.rows),
                             .cols = op.cols,
                             .rows = m.data(iota(count(l.rows))),
                             .x = m.in(op.x, l.places, op.cols),
                             .out = m.out("out", op.out, l.rows, op.cols)};
  });
}

template <class T>
void sample(Check& c, const Embedding<T>& op) {
  const Listed l(op.in.ids, op.in.tokens);
  const int64_t n = count(l.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Embedding<U>{
        .in = {.tokens = n, .cols = op.in.cols, .first = 0, .rows = n, .ids = m.data(iota(n))},
        .table = m.in(op.table - op.in.first * op.in.cols, l.rows, op.in.cols, op.in.cols),
        .out = m.out("out", op.out, l.places, op.in.cols)};
  });
}

// Of the rows of some tokens, all tokens that share them.
template <class T>
void sample(Check& c, const EmbeddingBackward<T>& op) {
  Picks rows = Listed(op.in.ids, op.in.tokens).rows, tokens;
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  const std::vector<int32_t> ids = fetch_bytes(op.in.ids, op.in.tokens);
  std::vector<int32_t> here;
  for (int64_t t = 0; t < op.in.tokens; ++t) {
    const auto at = std::lower_bound(rows.begin(), rows.end(), ids[static_cast<size_t>(t)]);
    if (at == rows.end() || *at != ids[static_cast<size_t>(t)]) continue;
    tokens.push_back(t);
    here.push_back(static_cast<int32_t>(at - rows.begin()));
  }
  c.expect<T>([&]<class U>(Part<U>& m) {
    return EmbeddingBackward<U>{
        .in = {.tokens = count(tokens),
               .cols = op.in.cols,
               .first = 0,
               .rows = count(rows),
               .ids = m.data(here)},
        .dout = m.in(op.dout, tokens, op.in.cols),
        .dtable = m.acc_out("dtable", op.dtable - op.in.first * op.in.cols, rows, op.in.cols, op.in.cols)};
  });
}

template <class U>
static PatchifyInputs inputs(Part<U>& m, const PatchifyInputs& in, const LastImage& i) {
  return {.images = 1,
          .rows = count(i.rows),
          .first_pixel = m.data(std::vector<int64_t>{0}),
          .sizes = m.data(i.sizes),
          .cu = m.data(i.cu),
          .channels = in.channels,
          .patch = in.patch};
}

template <class T>
void sample(Check& c, const Patchify<T>& op) {
  const LastImage i(op.in);
  const int64_t d = int64_t{op.in.channels} * op.in.patch * op.in.patch, n = count(i.rows);
  const T* pixels = op.pixels + fetch_bytes(op.in.first_pixel + op.in.images - 1, 1)[0];
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Patchify<U>{.in = inputs(m, op.in, i),
                       .pixels = m.in(pixels, n * d),
                       .patches = m.out("patches", op.patches, i.rows, d, d)};
  });
}

template <class T>
void sample(Check& c, const Unpatchify<T>& op) {
  const LastImage i(op.in);
  const int64_t d = int64_t{op.in.channels} * op.in.patch * op.in.patch, n = count(i.rows);
  const T* pixels = op.pixels + fetch_bytes(op.in.first_pixel + op.in.images - 1, 1)[0];
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Unpatchify<U>{.in = inputs(m, op.in, i),
                         .patches = m.in(op.patches, i.rows, d, d),
                         .pixels = m.out("pixels", pixels, {0}, n * d, n * d)};
  });
}

template <class T>
void sample(Check& c, const PositionEmbedding<T>& op) {
  const LastImage i(op.in);
  const int64_t cells = int64_t{op.in.grid} * op.in.grid;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return PositionEmbedding<U>{.in = {.images = 1,
                                       .sizes = m.data(i.sizes),
                                       .cu = m.data(i.cu),
                                       .grid = op.in.grid,
                                       .cols = op.in.cols},
                                .rows = count(i.rows),
                                .table = m.in(op.table, all(cells), op.in.cols, op.in.cols),
                                .x = m.in(op.x, i.rows, op.in.cols),
                                .out = m.out("out", op.out, i.rows, op.in.cols)};
  });
}

// Some columns, of all images.
template <class T>
void sample(Check& c, const PositionEmbeddingBackward<T>& op) {
  const std::vector<int32_t> cu = fetch_bytes(op.in.cu, op.in.images + 1);
  const int n = std::min(16, op.in.cols);
  const int64_t at = op.in.cols - n, cells = int64_t{op.in.grid} * op.in.grid;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return PositionEmbeddingBackward<U>{
        .in = {.images = op.in.images,
               .sizes = m.data(fetch_bytes(op.in.sizes, 2 * op.in.images)),
               .cu = m.data(cu),
               .grid = op.in.grid,
               .cols = n},
        .dout = m.in(op.dout.from_column(at), all(cu.back()), n),
        .dtable = m.acc_out("dtable", op.dtable + at, all(cells), n, op.in.cols)};
  });
}

template <class T>
void sample(Check& c, const PixelShuffle<T>& op) {
  const LastImage i(op);
  const int64_t first = i.rows.front() * op.cols,
                n = count(i.rows) * op.cols;  // the same place in both layouts
  c.expect<T>([&]<class U>(Part<U>& m) {
    return PixelShuffle<U>{.images = 1,
                           .rows = count(i.rows),
                           .sizes = m.data(i.sizes),
                           .cu = m.data(i.cu),
                           .cols = op.cols,
                           .inverse = op.inverse,
                           .from = m.in(op.from + first, n),
                           .to = m.out("to", op.to + first, {0}, n, n)};
  });
}

// The first and the last elements of the first and the last tensor.
template <class T>
void sample(Check& c, const AdamW<T>& op) {
  const std::vector<AdamTensor<T>> tensors = fetch_bytes(op.tensor, op.tensors);
  c.expect<T>([&]<class U>(Part<U>& m) {
    std::vector<AdamTensor<U>> list;
    int64_t total = 0;
    for (const AdamTensor<T>& t : {tensors.front(), tensors.back()}) {
      const int64_t n = std::min<int64_t>(t.n, 64);
      for (int64_t at : {int64_t{0}, t.n - n}) {
        if (at == 0 && !list.empty() && t.param == tensors.front().param) continue;
        AdamTensor<U> s{.n = n,
                        .param = m.out("param", t.param + at, {0}, n, n),
                        .master = nullptr,
                        .grad = m.acc(t.grad + at, {0}, n, n),
                        .m = m.acc_out("m", t.m + at, {0}, n, n),
                        .v = m.acc_out("v", t.v + at, {0}, n, n),
                        .decay = t.decay,
                        .lr = t.lr};
        if constexpr (std::is_same_v<U, acc_t<U>> && std::is_same_v<T, acc_t<T>>)
          s.master = s.param;
        else
          s.master = m.acc_out("master", t.master + at, {0}, n, n);
        list.push_back(s);
        total += n;
      }
    }
    return AdamW<U>{.tensors = static_cast<int>(list.size()),
                    .total = total,
                    .tensor = m.data(list),
                    .state = m.data(fetch_bytes(op.state, 1))};
  });
}

// All of it: there is one result.
template <class T>
void sample(Check& c, const SumSquares<T>& op) {
  const std::vector<const T*> at = fetch_bytes(op.x, op.tensors);
  const std::vector<int64_t> n = fetch_bytes(op.n, op.tensors);
  c.expect<T>([&]<class U>(Part<U>& m) {
    std::vector<const U*> x;
    for (size_t i = 0; i < at.size(); ++i) x.push_back(m.in(at[i], n[i]));
    return SumSquares<U>{.tensors = op.tensors,
                         .total = op.total,
                         .x = m.data(x),
                         .n = m.data(n),
                         .result = m.wide_out("result", op.result, 2)};
  });
}

template <class T>
void sample(Check& c, const RandomFill<T>& op) {
  const int64_t n = std::min<int64_t>(op.n, 1000), at = op.n - n;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return RandomFill<U>{.seed = op.seed,
                         .name = op.name,
                         .first = op.first + at,
                         .n = n,
                         .distribution = op.distribution,
                         .a = op.a,
                         .b = op.b,
                         .out = m.out("out", op.out + at, {0}, n, n)};
  });
}

#define SAMPLE(Op)                                \
  template void sample(Check&, const Op<float>&); \
  template void sample(Check&, const Op<bf16>&)
SAMPLE(GatherRows);
SAMPLE(ScatterRows);
SAMPLE(ScatterAddRows);
SAMPLE(Embedding);
SAMPLE(EmbeddingBackward);
SAMPLE(Patchify);
SAMPLE(Unpatchify);
SAMPLE(PositionEmbedding);
SAMPLE(PositionEmbeddingBackward);
SAMPLE(PixelShuffle);
SAMPLE(AdamW);
SAMPLE(SumSquares);
SAMPLE(RandomFill);

}  // namespace mimo::bench
