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
    return GatherRows<U>{count(l.rows),
                         op.cols,
                         m.data(iota(count(l.rows))),
                         m.in(op.x, l.rows, op.cols, op.x_ld),
                         op.cols,
                         m.out("out", op.out, l.places, op.cols, op.out_ld),
                         op.cols};
  });
}

template <class T>
void sample(Check& c, const ScatterRows<T>& op) {
  const Listed l(op.rows, op.count);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return ScatterRows<U>{count(l.rows),
                          op.cols,
                          m.data(iota(count(l.rows))),
                          m.in(op.x, l.places, op.cols, op.x_ld),
                          op.cols,
                          m.out("out", op.out, l.rows, op.cols, op.out_ld),
                          op.cols};
  });
}

// Benchmarks list every row once.
template <class T>
void sample(Check& c, const ScatterAddRows<T>& op) {
  const Listed l(op.rows, op.count);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return ScatterAddRows<U>{count(l.rows),
                             op.cols,
                             m.data(iota(count(l.rows))),
                             m.in(op.x, l.places, op.cols, op.x_ld),
                             op.cols,
                             m.out("out", op.out, l.rows, op.cols, op.out_ld),
                             op.cols};
  });
}

template <class T>
void sample(Check& c, const Embedding<T>& op) {
  const Listed l(op.ids, op.tokens);
  const int64_t n = count(l.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Embedding<U>{n,
                        op.cols,
                        0,
                        n,
                        m.data(iota(n)),
                        m.in(op.table - op.first * op.cols, l.rows, op.cols, op.cols),
                        m.out("out", op.out, l.places, op.cols, op.out_ld),
                        op.cols};
  });
}

// Of the rows of some tokens, all tokens that share them.
template <class T>
void sample(Check& c, const EmbeddingBackward<T>& op) {
  Picks rows = Listed(op.ids, op.tokens).rows, tokens;
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  const std::vector<int32_t> ids = fetch_bytes(op.ids, op.tokens);
  std::vector<int32_t> here;
  for (int64_t t = 0; t < op.tokens; ++t) {
    const auto at = std::lower_bound(rows.begin(), rows.end(), ids[static_cast<size_t>(t)]);
    if (at == rows.end() || *at != ids[static_cast<size_t>(t)]) continue;
    tokens.push_back(t);
    here.push_back(static_cast<int32_t>(at - rows.begin()));
  }
  c.expect<T>([&]<class U>(Part<U>& m) {
    return EmbeddingBackward<U>{count(tokens),
                                op.cols,
                                0,
                                count(rows),
                                m.data(here),
                                m.in(op.dout, tokens, op.cols, op.dout_ld),
                                op.cols,
                                m.acc_out("dtable", op.dtable - op.first * op.cols, rows, op.cols, op.cols)};
  });
}

template <class T>
void sample(Check& c, const Patchify<T>& op) {
  const LastImage i(op);
  const int64_t d = int64_t{op.channels} * op.patch * op.patch, n = count(i.rows);
  const T* pixels = op.pixels + fetch_bytes(op.first_pixel + op.images - 1, 1)[0];
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Patchify<U>{1,
                       n,
                       m.data(std::vector<int64_t>{0}),
                       m.data(i.sizes),
                       m.data(i.cu),
                       op.channels,
                       op.patch,
                       m.in(pixels, n * d),
                       m.out("patches", op.patches, i.rows, d, d)};
  });
}

template <class T>
void sample(Check& c, const Unpatchify<T>& op) {
  const LastImage i(op);
  const int64_t d = int64_t{op.channels} * op.patch * op.patch, n = count(i.rows);
  const T* pixels = op.pixels + fetch_bytes(op.first_pixel + op.images - 1, 1)[0];
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Unpatchify<U>{1,
                         n,
                         m.data(std::vector<int64_t>{0}),
                         m.data(i.sizes),
                         m.data(i.cu),
                         op.channels,
                         op.patch,
                         m.in(op.patches, i.rows, d, d),
                         m.out("pixels", pixels, {0}, n * d, n * d)};
  });
}

template <class T>
void sample(Check& c, const PositionEmbedding<T>& op) {
  const LastImage i(op);
  const int64_t cells = int64_t{op.grid} * op.grid;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return PositionEmbedding<U>{1,
                                count(i.rows),
                                m.data(i.sizes),
                                m.data(i.cu),
                                op.grid,
                                op.cols,
                                m.in(op.table, all(cells), op.cols, op.cols),
                                m.in(op.x, i.rows, op.cols, op.x_ld),
                                op.cols,
                                m.out("out", op.out, i.rows, op.cols, op.out_ld),
                                op.cols};
  });
}

// Some columns, of all images.
template <class T>
void sample(Check& c, const PositionEmbeddingBackward<T>& op) {
  const std::vector<int32_t> cu = fetch_bytes(op.cu, op.images + 1);
  const int n = std::min(16, op.cols);
  const int64_t at = op.cols - n, cells = int64_t{op.grid} * op.grid;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return PositionEmbeddingBackward<U>{
        op.images,  m.data(fetch_bytes(op.sizes, 2 * op.images)),
        m.data(cu), op.grid,
        n,          m.in(op.dout + at, all(cu.back()), n, op.dout_ld),
        n,          m.acc_out("dtable", op.dtable + at, all(cells), n, op.cols)};
  });
}

template <class T>
void sample(Check& c, const PixelShuffle<T>& op) {
  const LastImage i(op);
  const int64_t first = i.rows.front() * op.cols,
                n = count(i.rows) * op.cols;  // the same place in both layouts
  c.expect<T>([&]<class U>(Part<U>& m) {
    return PixelShuffle<U>{
        1,       count(i.rows), m.data(i.sizes),        m.data(i.cu),
        op.cols, op.inverse,    m.in(op.in + first, n), m.out("out", op.out + first, {0}, n, n)};
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
        AdamTensor<U> s{n,
                        m.out("param", t.param + at, {0}, n, n),
                        nullptr,
                        m.acc(t.grad + at, {0}, n, n),
                        m.acc_out("m", t.m + at, {0}, n, n),
                        m.acc_out("v", t.v + at, {0}, n, n),
                        t.decay,
                        t.lr};
        if constexpr (std::is_same_v<U, acc_t<U>> && std::is_same_v<T, acc_t<T>>)
          s.master = s.param;
        else
          s.master = m.acc_out("master", t.master + at, {0}, n, n);
        list.push_back(s);
        total += n;
      }
    }
    return AdamW<U>{static_cast<int>(list.size()), total, m.data(list), m.data(fetch_bytes(op.state, 1))};
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
    return SumSquares<U>{op.tensors, op.total, m.data(x), m.data(n), m.wide_out("result", op.result, 2)};
  });
}

template <class T>
void sample(Check& c, const RandomFill<T>& op) {
  const int64_t n = std::min<int64_t>(op.n, 1000), at = op.n - n;
  c.expect<T>([&]<class U>(Part<U>& m) {
    return RandomFill<U>{op.seed,         op.name, op.first + at, n,
                         op.distribution, op.a,    op.b,          m.out("out", op.out + at, {0}, n, n)};
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
